//! Many requests on one model: what they say, what they share, and that nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::serve::{PATIENCE, ask, chat, finish, greedy, runner, settled, submit};
use common::{demo_path, settings, streaming, tokens};
use hypura_core::plan::Residency;
use hypura_engine::request::{Event, Finish, Options, Request, SubmitError};
use hypura_engine::serve::{Live, Runner};
use hypura_engine::stream::ExpertState;
use hypura_engine::{ChatRequest, Grammar, Token, ToolChoice};
use std::sync::mpsc::channel;

fn demo(parallel: u32) -> Runner {
    runner(&demo_path(), settings(Residency::Resident).with_context(256), parallel)
}

#[test]
fn one_request_says_what_a_session_says() {
    let runner = demo(1);
    let (text, finished) = ask(&runner, chat(&runner, "What is a lynx?"), greedy());
    assert!(text.starts_with("A lynx is a kind of wildcat"), "{text}");
    assert_eq!(finished.reused_tokens, 0);
    let mut session = common::session(&demo_path(), settings(Residency::Resident).with_context(256));
    let prompt = chat(&runner, "What is a lynx?");
    let options = hypura_engine::session::GenerateOptions {
        sampler: greedy().sampler,
        max_tokens: greedy().max_tokens,
        ..Default::default()
    };
    let outcome = session.generate(&prompt, &options, &mut |_| Ok(())).unwrap();
    assert_eq!(outcome.tokens, finished.tokens);
}

#[test]
fn many_requests_at_once_all_get_their_answer() {
    let runner = demo(4);
    let questions = ["What is a lynx?", "What is Rust?", "What is a trait?", "What is a vector?"];
    let running: Vec<_> =
        (0..12).map(|at| submit(&runner, chat(&runner, questions[at % 4]), greedy())).collect();
    let answers: Vec<String> = running.iter().map(|(_, receiver)| finish(receiver).0).collect();
    for (at, answer) in answers.iter().enumerate() {
        assert!(!answer.is_empty(), "request {at}");
        assert!(at % 4 != 0 || answer.starts_with("A lynx is a kind of wildcat"), "{answer}");
    }
    let totals = settled(&runner).totals;
    assert!(totals.generated_tokens > 0 && totals.requests == 12, "{totals:?}");
}

#[test]
fn a_request_that_nobody_can_take_is_refused() {
    let runner = demo(1);
    let sink = || Box::new(|_: Event| true);
    let refused = |prompt: Vec<Token>, options: Options| {
        runner
            .submit(Request { prompt: prompt.into(), options }, sink())
            .map(|handle| handle.id())
            .unwrap_err()
    };
    assert_eq!(refused(Vec::new(), greedy()), SubmitError::EmptyPrompt);
    assert!(matches!(refused(vec![5; 4000], greedy()), SubmitError::PromptTooLong { prompt: 4000, .. }));
    assert_eq!(refused(vec![-3], greedy()), SubmitError::BadToken(-3));
    let grammar = Some(Grammar::user("root ::= ("));
    let bad = Options { grammar, ..greedy() };
    assert!(matches!(refused(vec![5], bad), SubmitError::BadGrammar(_)));
    runner.stop(true);
    assert_eq!(refused(vec![5], greedy()), SubmitError::Stopped);
}

#[test]
fn a_grammar_is_obeyed() {
    let runner = demo(2);
    let grammar = Some(Grammar::user(r#"root ::= "yes" | "no""#));
    let (text, finished) = ask(&runner, chat(&runner, "What is a lynx?"), Options { grammar, ..greedy() });
    assert!(text == "yes" || text == "no", "{text}");
    assert_eq!(finished.finish, Finish::End);
}

#[test]
fn a_streamed_model_answers_like_a_resident_one() {
    let prompt = |runner: &Runner| chat(runner, "What is a lynx?");
    let resident = demo(2);
    let streamed = runner(&demo_path(), streaming(33.0).with_context(256), 2);
    let (expected, _) = ask(&resident, prompt(&resident), greedy());
    let (text, finished) = ask(&streamed, prompt(&streamed), greedy());
    assert_eq!(text, expected);
    assert!(finished.prefill_stats.bytes_read + finished.decode_stats.bytes_read > 0);
}

#[test]
fn the_second_turn_of_a_conversation_reuses_the_first() {
    let runner = demo(1);
    let first = chat(&runner, "What is a lynx?");
    let (_, finished) = ask(&runner, first.clone(), greedy());
    let mut second = first;
    second.extend_from_slice(&finished.tokens);
    second.extend(tokens(5, 500));
    let (_, finished) = ask(&runner, second.clone(), greedy());
    assert!(finished.reused_tokens + 8 >= second.len() - 5, "{} of {}", finished.reused_tokens, second.len());
    assert_eq!(finished.prompt_tokens, second.len());
}

fn embed(runner: &Runner, inputs: Vec<Vec<Token>>) -> Vec<Vec<f32>> {
    let (sender, receiver) = channel();
    let _handle = runner.embed(inputs, Box::new(move |vectors| sender.send(vectors).unwrap())).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap().unwrap()
}

#[test]
fn texts_are_embedded_alone_together_and_in_parts() {
    let small = settings(Residency::Resident).with_context(256).with_ubatch(24);
    let runner_of = |settings| runner(&demo_path(), settings, 2);
    let first = runner_of(small.clone());
    let text = |text: &str| first.text().tokenize(text, true, false);
    // The last one is longer than a graph.
    let texts =
        vec![text("A lynx is a wildcat."), text("Rust"), text(&"wild cats ".repeat(12)), text("Rust")];
    assert!(texts[2].len() > 24);
    let vectors = embed(&first, texts.clone());
    assert_eq!(vectors.len(), 4);
    assert!(vectors.iter().all(|vector| vector.len() == first.info().embedding_length));
    let distance = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    assert!(distance(&vectors[1], &vectors[3]) < 1e-3);
    assert!(distance(&vectors[0], &vectors[1]) > 1e-3);
    let whole = runner_of(small.clone().with_ubatch(128));
    assert!(distance(&vectors[2], &embed(&whole, vec![texts[2].clone()])[0]) < 1e-3);
    let streamed = runner_of(streaming(33.0).with_context(256).with_ubatch(24));
    assert_eq!(embed(&streamed, texts), vectors);
    // Embeddings leave the context as it was.
    let (answer, _) = ask(&first, chat(&first, "What is a lynx?"), greedy());
    assert!(answer.starts_with("A lynx is a kind of wildcat"), "{answer}");
    assert!(settled(&first).slots.iter().all(|slot| slot.request.is_none()));
}

#[test]
fn a_larger_context_grows_without_losing_what_was_in_memory() {
    let runner = demo(2);
    let first = chat(&runner, "What is a lynx?");
    let (_, finished) = ask(&runner, first.clone(), greedy());
    let before = settled(&runner);
    assert_eq!(before.context_length, 256);
    let mut second = first;
    second.extend_from_slice(&finished.tokens);
    second.extend(tokens(300, 500));
    let wanted = Options { num_ctx: Some(1500), ..greedy() };
    assert!(matches!(
        runner.submit(Request { prompt: second.clone().into(), options: greedy() }, Box::new(|_| true)),
        Err(SubmitError::PromptTooLong { context: 256, .. })
    ));
    let most = runner.context_most();
    assert!(most > 256, "{most}");
    let (_, finished) = ask(&runner, second, wanted);
    assert!(finished.reused_tokens > 10, "{}", finished.reused_tokens);
    let after = settled(&runner);
    assert_eq!(after.context_length, most.min(2048));
    assert!(after.kv_bytes > before.kv_bytes && after.memory_bytes > before.memory_bytes);
}

#[test]
fn a_call_that_must_come_is_the_first_thing_that_comes() {
    let runner = demo(1);
    let tools =
        r#"[{"type":"function","function":{"name":"now","parameters":{"type":"object","properties":{}}}}]"#;
    let request = ChatRequest {
        tools_json: Some(tools.to_owned()),
        tool_choice: ToolChoice::Required,
        ..ChatRequest::new(r#"[{"role":"user","content":"What is a lynx?"}]"#)
    };
    let qwen = include_str!("../../ggml/tests/templates/qwen.jinja");
    let prompt = runner.text().apply_template(qwen, &request).unwrap();
    let tokens = runner.text().tokenize_chat(&prompt);
    let options = Options { grammar: prompt.grammar.clone(), max_tokens: Some(200), ..greedy() };
    // The demo model knows no tools: it may go on calling.
    let (text, _) = ask(&runner, tokens, options);
    assert!(text.starts_with("<tool_call>"), "{text}");
    assert!(text.contains(r#""now""#), "{text}");
}

#[test]
fn an_answer_that_fills_the_context_gets_a_larger_one_if_it_may() {
    let runner = demo(2);
    let prompt = chat(&runner, "What is a lynx?");
    let ask_for = |num_ctx_most| {
        let options = Options { ignore_end: true, max_tokens: Some(2000), num_ctx_most, ..greedy() };
        ask(&runner, prompt.clone(), options)
    };
    let (text, finished) = ask_for(None);
    assert_eq!(finished.finish, Finish::ContextFull);
    assert_eq!(prompt.len() + finished.tokens.len(), 257);
    let (longer, finished) = ask_for(Some(1000));
    assert_eq!(finished.finish, Finish::ContextFull);
    assert_eq!(settled(&runner).context_length, 1024);
    assert_eq!(prompt.len() + finished.tokens.len(), 1025);
    assert!(longer.starts_with(&text), "what was there before goes on");
}

#[test]
fn an_answer_that_fills_the_context_goes_on_without_a_part_of_it() {
    const CONTEXT: usize = 256;
    const KEEP: usize = 4;
    let settings = settings(Residency::Resident).with_context(CONTEXT as u32);
    let runner = runner(&demo_path(), settings, 1);
    let prompt = chat(&runner, "What is a lynx?");
    let begin = prompt.len();
    let ask_for = |shift| {
        let options = Options { ignore_end: true, max_tokens: Some(600), shift, ..greedy() };
        ask(&runner, prompt.clone(), options).1
    };
    let ended = ask_for(None);
    assert_eq!((ended.finish, ended.tokens.len()), (Finish::ContextFull, CONTEXT + 1 - begin));
    let went_on = ask_for(Some(KEEP as u32));
    assert_eq!((went_on.finish, went_on.tokens.len()), (Finish::Length, 600));
    assert_eq!(went_on.tokens[..ended.tokens.len()], ended.tokens);
    // From there it is the answer to what was left.
    let mut left = [prompt.clone(), ended.tokens].concat();
    left.drain(KEEP..KEEP + (CONTEXT - KEEP) / 2);
    let options = Options { ignore_end: true, max_tokens: Some(20), ..greedy() };
    let fresh = ask(&runner, left, options).1;
    assert_eq!(went_on.tokens[CONTEXT + 1 - begin..][..20], fresh.tokens);
}

#[test]
fn whoever_watches_sees_speeds_and_the_experts_in_memory() {
    let runner = runner(&demo_path(), streaming(33.0).with_context(256), 1);
    assert_eq!(runner.status().live, Live::default(), "nothing was computed yet");
    let (_, outcome) =
        ask(&runner, chat(&runner, "What is a lynx?"), Options { max_tokens: Some(24), ..greedy() });
    let live = settled(&runner).live;
    let (prefill, decode) = (live.prefill.unwrap(), live.decode.unwrap());
    assert!(prefill.tokens_per_s > 0.0 && decode.tokens_per_s > 0.0);
    // The first token ended the prompt.
    let stats = outcome.decode_stats;
    let tokens = (outcome.tokens.len() - 1) as f64;
    let bytes = decode.bytes_per_token.unwrap();
    assert!(bytes > 0.0 && bytes <= stats.bytes_read as f64 / tokens * 3.0, "{bytes} {}", stats.bytes_read);
    let lookups = stats.lookups();
    let hits = lookups.hits as f64 / (lookups.hits + lookups.misses) as f64;
    assert!((decode.hit_rate.unwrap() - hits).abs() < 0.25, "{:?} {hits}", decode.hit_rate);
    let info = runner.info();
    let map = runner.experts().unwrap();
    assert_eq!(
        (map.layers.len(), map.layers[0].experts.len()),
        (info.layers as usize, info.experts as usize)
    );
    let all = map.layers.iter().flat_map(|row| &row.experts);
    let (used, there) = (
        all.clone().filter(|state| **state == ExpertState::UsedNow).count(),
        all.clone().filter(|state| **state != ExpertState::OnDisk).count(),
    );
    assert!(there > 0 && there < all.count(), "{there} of them are in memory");
    assert!(used > 0 && used <= (info.layers * info.experts_used) as usize, "{used} by the last token");
    let parts = runner.status().parts;
    assert!(parts.weights > 0 && parts.streaming > 0 && parts.kv > 0, "{parts:?}");
}

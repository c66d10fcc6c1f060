//! Requests beside each other: what they share, what one may do to another, and what is left behind.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::serve::{PATIENCE, ask, chat, finish, greedy, runner, runner_with, settled, submit};
use common::{demo_path, settings, streaming, tiny, tokens};
use hypura_core::plan::Residency;
use hypura_core::synth::{Quant, Shape};
use hypura_engine::load::LoadSettings;
use hypura_engine::request::{Event, Finish, Options, Request, SubmitError, TokenInfo};
use hypura_engine::serve::{Runner, RunnerSettings};
use hypura_engine::sim::{Eio, SimConfig};
use hypura_engine::{ReaderKind, SamplerOptions, Token};
use std::sync::mpsc::{Receiver, channel};

fn wide(settings: LoadSettings) -> LoadSettings {
    settings.with_context(512)
}

/// Submits requests so that they join in the same steps in every run: the scheduler is held in the first
/// one's sink until all are there.
fn together(runner: &Runner, prompts: Vec<Vec<Token>>, options: &Options) -> Vec<Vec<Event>> {
    let (hold, held) = channel::<()>();
    let (begin, begun) = channel::<()>();
    let mut held = Some((held, begin));
    let mut running = Vec::new();
    for (at, prompt) in prompts.into_iter().enumerate() {
        let (sender, receiver) = channel();
        let mut held = held.take();
        let sink = move |event| {
            if let Some((held, begin)) = held.take() {
                begin.send(()).unwrap();
                let _ = held.recv_timeout(PATIENCE);
            }
            sender.send(event).is_ok()
        };
        let request = Request { prompt: prompt.into(), options: options.clone() };
        running.push((runner.submit(request, Box::new(sink)).unwrap(), receiver));
        if at == 0 {
            // Before the others come: otherwise a scheduler that wakes late takes several into its first
            // step.
            begun.recv_timeout(PATIENCE).unwrap();
        }
    }
    hold.send(()).unwrap();
    running.iter().map(|(_, receiver)| all_events(receiver)).collect()
}

fn all_events(receiver: &Receiver<Event>) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = receiver.recv_timeout(PATIENCE).unwrap();
        let last = matches!(event, Event::Done(_) | Event::Failed(_));
        events.push(event);
        if last {
            return events;
        }
    }
}

fn infos(events: &[Event]) -> Vec<TokenInfo> {
    let tokens = events.iter().filter_map(|event| match event {
        Event::Text { tokens, .. } => Some(tokens.clone()),
        _ => None,
    });
    tokens.flatten().collect()
}

#[test]
fn the_same_steps_give_the_same_bits_streamed_or_resident() {
    for (shape, quant) in [
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyGptOss, Quant::MXFP4),
        (Shape::TinyLlama, Quant::Q4_K),
    ] {
        let model = tiny(shape, quant, 1);
        let options = Options { logprobs: Some(3), ignore_end: true, max_tokens: Some(8), ..greedy() };
        let run = |settings: LoadSettings| {
            let runner = runner(&model.path, settings, 4);
            let prompts = (0..6usize).map(|at| tokens(10 + 17 * at, 300 + at)).collect();
            let events = together(&runner, prompts, &options);
            (events.iter().map(|events| infos(events)).collect::<Vec<_>>(), settled(&runner).totals)
        };
        let (resident, _) = run(settings(Residency::Resident));
        let (streamed, totals) = run(streaming(30.0));
        assert!(resident.iter().all(|tokens| tokens.len() >= 6), "{resident:?}");
        assert_eq!(streamed, resident, "{shape:?}");
        assert!(totals.stream.bytes_read > 0);
        assert!(totals.saved_bytes > 0, "{totals:?}");
    }
}

#[test]
fn a_prompt_shares_its_beginning_with_one_that_still_runs() {
    let runner = runner(&demo_path(), wide(settings(Residency::Resident)), 2);
    let beginning = chat(&runner, "What is a lynx?");
    let prompt = |tail: usize| {
        let mut prompt = beginning.clone();
        prompt.extend(tokens(tail, 400));
        prompt
    };
    let long = Options { ignore_end: true, max_tokens: Some(200), ..greedy() };
    let (_first, events) = submit(&runner, prompt(3), long);
    while !matches!(events.recv_timeout(PATIENCE).unwrap(), Event::Text { .. }) {}
    let (_, finished) = ask(&runner, prompt(9), greedy());
    assert!(finished.reused_tokens >= beginning.len(), "{}", finished.reused_tokens);
    assert_eq!(finish(&events).1.tokens.len(), 200, "the first one went on undisturbed");
}

#[test]
fn log_probabilities_are_those_of_the_raw_logits() {
    let runner = runner(&demo_path(), wide(settings(Residency::Resident)), 1);
    let options = Options { logprobs: Some(5), ..greedy() };
    let prompt = chat(&runner, "What is a lynx?");
    let events = together(&runner, vec![prompt], &options);
    let tokens = infos(&events[0]);
    assert!(tokens.len() > 5);
    for info in tokens {
        let (likeliest, _, logprob) = &info.top[0];
        assert_eq!((info.token, info.logprob), (*likeliest, Some(*logprob)), "greedy takes the likeliest");
        assert_eq!(info.top.len(), 5);
        assert!(info.top.windows(2).all(|pair| pair[0].2 >= pair[1].2));
        let sum: f32 = info.top.iter().map(|(_, _, logprob)| logprob.exp()).sum();
        assert!(sum <= 1.001, "{sum}");
    }
}

#[test]
fn the_same_seed_says_the_same_and_another_seed_something_else() {
    let say = |seed| {
        let runner = runner(&demo_path(), wide(settings(Residency::Resident)), 1);
        let sampler = SamplerOptions { temperature: 1.5, top_k: 0, top_p: 1.0, seed, ..Default::default() };
        let options = Options { sampler, max_tokens: Some(40), ignore_end: true, ..greedy() };
        ask(&runner, chat(&runner, "What is a lynx?"), options).1.tokens
    };
    assert_eq!(say(7), say(7));
    assert_ne!(say(7), say(8));
}

#[test]
fn a_cancelled_prompt_ends_at_once_and_the_others_go_on() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let settings = streaming(20.0).with_context(2048).with_ubatch(8);
    let runner = runner(&model.path, settings, 2);
    let options = Options { ignore_end: true, max_tokens: Some(30), ..greedy() };
    let (_other, other) = submit(&runner, tokens(20, 300), options.clone());
    let (handle, events) = submit(&runner, tokens(1900, 400), Options { progress: true, ..options });
    while !matches!(events.recv_timeout(PATIENCE).unwrap(), Event::Progress { .. }) {}
    handle.cancel();
    let (_, finished) = finish(&events);
    assert_eq!((finished.finish, finished.tokens.len()), (Finish::Stopped, 0));
    assert_eq!(finish(&other).1.tokens.len(), 30);
    // A handle that is dropped cancels too, also while its request waits; a sink that says so likewise.
    let (handle, _events) = submit(&runner, tokens(1900, 400), greedy());
    drop(handle);
    let request = Request { prompt: tokens(50, 400).into(), options: greedy() };
    let _handle = runner.submit(request, Box::new(|_| false)).unwrap();
    let status = settled(&runner);
    assert!(status.slots.iter().all(|slot| slot.request.is_none()), "{status:?}");
}

#[test]
fn the_queue_is_bounded_and_first_come_first_served() {
    let serving = RunnerSettings { max_queue: 1, ..RunnerSettings::default() };
    let runner = runner_with(&demo_path(), wide(settings(Residency::Resident)), 1, serving);
    let (hold, held) = channel::<()>();
    let (started, starts) = channel();
    let request =
        |runner: &Runner| Request { prompt: chat(runner, "What is Rust?").into(), options: greedy() };
    let first_sink = {
        let (mut held, started) = (Some(held), started.clone());
        move |event| {
            if let (Event::Started { .. }, Some(held)) = (event, held.take()) {
                started.send(1).unwrap();
                let _ = held.recv_timeout(PATIENCE);
            }
            true
        }
    };
    let _first = runner.submit(request(&runner), Box::new(first_sink)).unwrap();
    assert_eq!(starts.recv_timeout(PATIENCE).unwrap(), 1);
    let second_sink = move |event| {
        if let Event::Started { .. } = event {
            started.send(2).unwrap();
        }
        true
    };
    let _second = runner.submit(request(&runner), Box::new(second_sink)).unwrap();
    let third = runner.submit(request(&runner), Box::new(|_| true)).map(|_| ());
    assert_eq!(third, Err(SubmitError::QueueFull(1)));
    assert_eq!(runner.status().queued, 1);
    hold.send(()).unwrap();
    assert_eq!(starts.recv_timeout(PATIENCE).unwrap(), 2);
    settled(&runner);
}

#[test]
fn a_disk_error_fails_one_and_what_can_be_repeated_is_exact() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let faulty = |eio| {
        streaming(20.0).with_stream_reader(Some(ReaderKind::Sim(SimConfig { eio, ..SimConfig::default() })))
    };
    let options = Options { ignore_end: true, max_tokens: Some(6), ..greedy() };
    let alone = {
        let runner = runner(&model.path, streaming(20.0), 1);
        ask(&runner, tokens(30, 300), options.clone()).1.tokens
    };
    for at in [0, 9, 40] {
        let runner = runner(&model.path, faulty(Eio::OnceAt(at)), 1);
        let events = together(&runner, vec![tokens(30, 300)], &options);
        let Some(Event::Failed(error)) = events[0].last() else { unreachable!("{events:?}") };
        assert!(error.to_string().contains("cannot read"), "{error}");
        assert_eq!(
            ask(&runner, tokens(30, 300), options.clone()).1.tokens,
            alone,
            "after a fault at read {at}"
        );
    }
    // Two in one step: each is repeated alone, and the disk works again.
    let both = runner(&model.path, faulty(Eio::OnceAt(500)), 2);
    let events = together(&both, vec![tokens(30, 300), tokens(40, 350)], &options);
    assert!(events.iter().filter(|events| matches!(events.last(), Some(Event::Done(_)))).count() >= 1);
    // A disk that is gone fails everything and hangs nothing.
    let gone = runner(&model.path, faulty(Eio::ForeverFrom(30)), 2);
    for _ in 0..2 {
        let events = together(&gone, vec![tokens(30, 300), tokens(40, 350)], &options);
        assert!(events.iter().all(|events| matches!(events.last(), Some(Event::Failed(_)))), "{events:?}");
    }
    let status = settled(&gone);
    assert_eq!((status.totals.failed, status.held.pins), (4, 0));
}

/// A small generator of random numbers (Marsaglia's xorshift), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

#[test]
fn thousands_of_requests_that_come_and_go_leave_nothing_behind() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let runner = runner(&model.path, streaming(30.0), 3);
    let mut random = Random(42);
    let mut kept = Vec::new();
    let mut submitted = 0u64;
    while submitted < 2000 {
        let length = 1 + random.below(40) as usize;
        let prompt = tokens(length, 300 + random.below(3) as usize);
        let options = Options { ignore_end: true, max_tokens: Some(random.below(5) as u32), ..greedy() };
        let mut patience = random.below(6);
        let sink = move |_: Event| {
            patience = patience.saturating_sub(1);
            patience > 0
        };
        match runner.submit(Request { prompt: prompt.into(), options }, Box::new(sink)) {
            Ok(handle) => {
                submitted += 1;
                match random.below(4) {
                    0 => drop(handle),
                    1 => handle.detach(),
                    _ => kept.push(handle),
                }
            }
            Err(SubmitError::QueueFull(_)) => kept.clear(),
            Err(error) => unreachable!("{error}"),
        }
        if random.below(50) == 0 {
            kept.clear();
        }
    }
    drop(kept);
    let status = settled(&runner);
    assert!(status.slots.iter().all(|slot| slot.request.is_none()), "{status:?}");
    assert_eq!(status.held.pins, 0);
    let cached: usize = status.slots.iter().map(|slot| slot.cached_tokens).sum();
    assert!(cached <= status.context_cells as usize, "{status:?}");
    assert_eq!(status.totals.failed, 0);
    // And it still answers, as if nothing had happened.
    let options = Options { ignore_end: true, max_tokens: Some(6), ..greedy() };
    let (_, finished) = ask(&runner, tokens(100, 390), options);
    assert_eq!(finished.tokens.len(), 6);
    runner.stop(true);
    assert_eq!(runner.status().active, 0);
}

#[test]
fn conversations_on_disk_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let start = |settings: LoadSettings| {
        let serving =
            RunnerSettings { kv_cache_dir: Some(folder.path().to_owned()), ..RunnerSettings::default() };
        runner_with(&demo_path(), wide(settings), 1, serving)
    };
    let long = Options { ignore_end: true, max_tokens: Some(80), ..greedy() };
    let first = start(settings(Residency::Resident));
    let prompt = chat(&first, "What is a lynx?");
    let (_, finished) = ask(&first, prompt.clone(), long.clone());
    let mut second = prompt;
    second.extend_from_slice(&finished.tokens);
    second.extend(tokens(4, 400));
    first.stop(true);
    let again = start(settings(Residency::Resident));
    let (_, finished) = ask(&again, second.clone(), greedy());
    assert!(finished.reused_tokens > 64, "{}", finished.reused_tokens);
    again.stop(false);
    // What other settings computed has other bits: another KV cache, other kernels, other ubatches.
    for other in [
        settings(Residency::Resident).with_kv(hypura_engine::KvType::Q8_0),
        settings(Residency::Auto),
        settings(Residency::Resident).with_ubatch(16),
    ] {
        let other = start(other);
        let (_, finished) = ask(&other, second.clone(), greedy());
        assert_eq!(finished.reused_tokens, 0);
        other.stop(false);
    }
    // Streamed or not, the kernels are those of the file's layout.
    let streamed = start(streaming(50.0));
    let (_, finished) = ask(&streamed, second, greedy());
    assert!(finished.reused_tokens > 64, "{}", finished.reused_tokens);
}

//! Pictures in prompts: exact also where weights stream, reused as a whole, in the way of nobody.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use common::media::{Sensing, chat, forced, hash_of, prompt, run, sensing};
use common::serve::{PATIENCE, finish, greedy, runner, runner_with, settled};
use common::{least_bytes, settings, streaming};
use hypura_core::plan::{Purpose, Residency};
use hypura_core::synth::{self, ProjectorKind, Shape};
use hypura_engine::error::{GenerateError, LoadError};
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::media::picture::MOST_PICTURES;
use hypura_engine::media::{MediaPrompt, MediaPromptError, marker};
use hypura_engine::request::{
    Event, Finish, MediaFile, Options, Prompt, PromptPart as RequestPart, Request, SubmitError,
};
use hypura_engine::serve::{Runner, RunnerSettings};
use hypura_engine::session::{GenerateOptions, Session};
use hypura_engine::source::ModelSource;
use hypura_engine::{ChatPrompt, Token};
use hypura_ggml::{
    Batch, Context, ContextOptions, KvType, LoadMode, LoadOptions, Medium, Model, Projector, PromptPart,
    PromptPiece, RowsPart,
};
use std::fs;
use std::sync::mpsc::channel;

const SHAPES: [Shape; 4] = [Shape::TinyLlama, Shape::TinyQwen2Vl, Shape::TinyGemma3, Shape::TinyQwen3Moe];

/// A model that sees.
fn seeing(shape: Shape) -> Sensing {
    sensing(shape, &ProjectorKind::file_for(shape, 7).unwrap())
}

/// A picture file that no other `seed` makes.
fn picture(seed: u8) -> Vec<u8> {
    synth::picture(seed, 112, 84)
}

fn wide(residency: Residency) -> LoadSettings {
    settings(residency).with_context(256).with_ubatch(24)
}

#[test]
fn a_streamed_run_with_pictures_equals_the_resident_one_bit_for_bit() {
    for shape in SHAPES {
        let seeing = seeing(shape);
        let (one, two) = (picture(1), picture(2));
        let pictures: [&[u8]; 2] = [&one, &two];
        let (resident, read) = hash_of(&seeing, wide(Residency::Resident), &pictures);
        assert_eq!(read, 0);
        for (percent, tables) in [(0.0, Residency::Auto), (45.0, Residency::Auto), (45.0, Residency::Stream)]
        {
            // Of a picture's rows the graph has a branch for tokens too, whose ids nobody has set.
            let settings = streaming(percent).with_context(256).with_tables(tables);
            let (streamed, read) = hash_of(&seeing, settings, &pictures);
            assert_eq!(streamed, resident, "{shape} {percent}% {tables:?}");
            assert!(read > 0, "{shape} {percent}%: nothing was streamed");
        }
    }
}

#[test]
fn another_picture_gives_other_logits_and_the_same_one_the_same() {
    for shape in SHAPES {
        let seeing = seeing(shape);
        let hash = |seed| hash_of(&seeing, wide(Residency::Resident), &[&picture(seed)]).0;
        let one = hash(1);
        assert_eq!(one, hash(1), "{shape}");
        assert_ne!(one, hash(2), "{shape}");
    }
}

/// The same by hand: text, rows and text, each in graphs of their own, at the places that mtmd names.
fn by_hand(seeing: &Sensing, settings: &LoadSettings, picture: &[u8]) -> (usize, Vec<f32>) {
    let mode = LoadMode::Plain { repack: false, mmap: false };
    let options = LoadOptions::on_cpu(seeing.model.path.clone(), mode);
    let model = Model::load(&options).unwrap().fill(|_| Ok::<(), ()>(())).unwrap();
    let projector = Projector::load(&seeing.projector, &model, 1, &mut |_| true).unwrap();
    let decoded = hypura_engine::media::picture::decode(picture, 1).unwrap();
    let medium = Medium::picture(decoded.width, decoded.height, &decoded.rgb, "it").unwrap();
    let text = |text| PromptPart::Text { text, control: true };
    let parts = [text("here is "), PromptPart::Medium(&medium), text(" what is it?")];
    let pieces = projector.tokenize(&parts).unwrap();
    let room = settings.model.ubatch.max(64);
    let options = ContextOptions {
        context: settings.model.context,
        batch: room,
        ubatch: room,
        outputs: 4,
        sequences: 1,
        threads: 1,
        kv: KvType::F16,
        pooling: None,
        flash_attention: true,
        alone: false,
        reference_kernels: false,
        moe_cache_bytes: 0,
    };
    let mut context = Context::new(&model, &options, Vec::new(), std::sync::Arc::default()).unwrap();
    let mut batch = Batch::new(room as usize);
    let (mut position, mut rows) = (0, 0);
    let last = pieces.len() - 1;
    for (at, piece) in pieces.iter().enumerate() {
        batch.clear();
        match piece {
            PromptPiece::Tokens(tokens) => {
                for (offset, token) in tokens.iter().enumerate() {
                    batch.push(*token, position, 0, at == last && offset + 1 == tokens.len()).unwrap();
                    position += 1;
                }
                rows += tokens.len();
            }
            PromptPiece::Media(chunk) => {
                let places = chunk.places(position).unwrap();
                let numbers = projector.encode(chunk).unwrap();
                let part = RowsPart {
                    numbers: &numbers,
                    places: &places,
                    from: 0,
                    rows: chunk.rows(),
                    sequence: 0,
                    non_causal: chunk.non_causal(),
                    logits: false,
                };
                batch.set_rows(&part).unwrap();
                position += i32::try_from(chunk.positions()).unwrap();
                rows += chunk.rows();
            }
        }
        context.decode(&batch).unwrap();
    }
    (rows, context.logits(-1).unwrap().to_vec())
}

#[test]
fn rows_are_where_mtmd_wants_them() {
    for shape in SHAPES {
        let seeing = seeing(shape);
        let settings = wide(Residency::Resident).with_ubatch(64);
        let picture = picture(3);
        let (rows, logits) = by_hand(&seeing, &settings, &picture);
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        let mut session = seeing.session(settings);
        let parts = vec![(format!("here is {} what is it?", marker()), false)];
        let mut rendered: ChatPrompt = session.render(&chat("x")).unwrap();
        rendered.parts = parts;
        let prompt = session.tokenize_with_media(&rendered, &[&picture]).unwrap();
        assert_eq!(prompt.tokens.len(), rows, "{shape}");
        assert_eq!(prompt.media.rows(), prompt.tokens.iter().filter(|token| **token < 0).count());
        let options = GenerateOptions { max_tokens: Some(1), ..forced(Vec::new()) };
        let options = GenerateOptions { forced: None, ..options };
        let outcome = session.generate_after(prompt, &options, &mut |_| Ok(())).unwrap();
        assert_eq!(outcome.tokens, [Token::try_from(best).unwrap()], "{shape}");
        let mut hash = hypura_engine::request::LogitsHash::default();
        hash.add(&logits);
        assert_eq!(outcome.logits_hash.unwrap().to_string(), hash.to_string(), "{shape}: bit for bit");
    }
}

#[test]
fn the_second_turn_of_a_chat_uses_the_rows_of_the_first() {
    for shape in SHAPES {
        let seeing = seeing(shape);
        let (one, two) = (picture(1), picture(2));
        let mut session = seeing.session(wide(Residency::Resident));
        let first = prompt(&mut session, "look at <picture> now", &[&one]);
        let (length, rows) = (first.tokens.len(), first.media.rows());
        assert!(rows >= 12, "{shape}: {rows}");
        let options = || forced(vec![40, 50]);
        session.generate_after(first, &options(), &mut |_| Ok(())).unwrap();
        let longer = "look at <picture> now and then at <picture> please";
        let second = prompt(&mut session, longer, &[&one, &two]);
        let outcome = session.generate_after(second.clone(), &options(), &mut |_| Ok(())).unwrap();
        assert!(outcome.reused_tokens > rows && outcome.reused_tokens < length, "{shape}: {outcome:?}");
        // The same once more: all but the last token.
        let again = session.generate_after(second.clone(), &options(), &mut |_| Ok(())).unwrap();
        assert_eq!(again.reused_tokens, second.tokens.len() - 1, "{shape}");
        // Another picture in its place: nothing from there on.
        let other = prompt(&mut session, "look at <picture> now", &[&two]);
        let start = other.tokens.iter().position(|token| *token < 0).unwrap();
        let outcome = session.generate_after(other, &options(), &mut |_| Ok(())).unwrap();
        assert!(outcome.reused_tokens <= start, "{shape}: {} of {start}", outcome.reused_tokens);
    }
}

#[test]
fn what_was_reused_answers_as_what_is_read_anew() {
    for shape in SHAPES {
        let seeing = seeing(shape);
        let (one, two) = (picture(1), picture(2));
        let answer = |session: &mut Session, text: &str, pictures: &[&[u8]]| {
            let prompt = prompt(session, text, pictures);
            let options = GenerateOptions { forced: None, max_tokens: Some(6), ..forced(Vec::new()) };
            session.generate_after(prompt, &options, &mut |_| Ok(())).unwrap()
        };
        let longer = "look at <picture> now and then at <picture> please";
        let mut warm = seeing.session(wide(Residency::Resident));
        answer(&mut warm, "look at <picture> now", &[&one]);
        let reused = answer(&mut warm, longer, &[&one, &two]);
        let anew = answer(&mut seeing.session(wide(Residency::Resident)), longer, &[&one, &two]);
        assert!(reused.reused_tokens > 0 && anew.reused_tokens == 0);
        assert_eq!(reused.tokens, anew.tokens, "{shape}");
    }
}

fn tokenize_with_media(runner: &Runner, text: &str, pictures: &[&[u8]]) -> MediaPrompt {
    runner.text().tokenize_text_with_media(&text.replace("<picture>", marker()), pictures).unwrap()
}

fn ask(runner: &Runner, prompt: MediaPrompt, options: Options) -> std::sync::mpsc::Receiver<Event> {
    let (sender, receiver) = channel();
    let sink = Box::new(move |event| sender.send(event).is_ok());
    runner.submit_cut(prompt, options, sink).unwrap().detach();
    receiver
}

#[test]
fn many_see_at_once_and_each_gets_its_own_answer() {
    // Not an MoE model: its routers amplify the last bits, which the number of rows in a step decides.
    for shape in [Shape::TinyQwen2Vl, Shape::TinyGemma3, Shape::TinyLlama] {
        let seeing = seeing(shape);
        let load = || seeing.settings(settings(Residency::Resident).with_context(256).with_ubatch(16));
        let options = || Options { max_tokens: Some(5), ..greedy() };
        let pictures: Vec<Vec<u8>> = (0..4).map(picture).collect();
        let text = |at: usize| format!("number {at} shows <picture> of this kind");
        let alone: Vec<String> = (0..4)
            .map(|at| {
                let runner = runner(&seeing.model.path, load(), 1);
                let prompt = tokenize_with_media(&runner, &text(at), &[&pictures[at]]);
                finish(&ask(&runner, prompt, options())).0
            })
            .collect();
        let runner = runner(&seeing.model.path, load(), 5);
        let words = tokenize_with_media(&runner, "just words", &[]);
        let words = ask(&runner, words, Options { max_tokens: Some(40), ..greedy() });
        let asked: Vec<_> = (0..4)
            .map(|at| ask(&runner, tokenize_with_media(&runner, &text(at), &[&pictures[at]]), options()))
            .collect();
        let together: Vec<String> = asked.iter().map(|receiver| finish(receiver).0).collect();
        finish(&words);
        assert_eq!(together, alone, "{shape}");
        assert!(settled(&runner).totals.failed == 0);
    }
}

#[test]
fn a_cancelled_picture_leaves_others_and_the_memory_as_they_should_be() {
    let seeing = seeing(Shape::TinyQwen2Vl);
    let load = seeing.settings(settings(Residency::Resident).with_context(512).with_ubatch(4));
    let runner = runner(&seeing.model.path, load, 2);
    let large = synth::picture(1, 220, 220);
    let prompt = tokenize_with_media(&runner, "a long look at <picture> that nobody waits for", &[&large]);
    assert!(prompt.media.rows() > 40);
    let whole = finish(&ask(&runner, prompt.clone(), greedy())).0;
    for _ in 0..8 {
        let (sender, receiver) = channel();
        let sink = Box::new(move |event| sender.send(event).is_ok());
        let other =
            tokenize_with_media(&runner, "another long look at <picture>", &[&synth::picture(2, 220, 220)]);
        let handle = runner.submit_cut(other, Options { progress: true, ..greedy() }, sink);
        let handle = handle.unwrap();
        // Somewhere in the middle of the picture.
        loop {
            match receiver.recv_timeout(PATIENCE).unwrap() {
                Event::Progress { processed, .. } if processed > 12 => break,
                Event::Failed(error) => panic!("{error}"),
                Event::Done(_) => break,
                _ => {}
            }
        }
        drop(handle);
        let status = settled(&runner);
        assert_eq!(status.totals.failed, 0);
        assert_eq!(finish(&ask(&runner, prompt.clone(), greedy())).0, whole);
    }
}

#[test]
fn a_prompt_that_was_sent_as_bytes_is_answered_like_one_that_was_cut_here() {
    let seeing = seeing(Shape::TinyLlama);
    let runner = runner(&seeing.model.path, seeing.settings(wide(Residency::Resident)), 1);
    let (one, two) = (picture(1), picture(2));
    let text = |text: &str| RequestPart::Text { text: text.to_owned(), control: true };
    let file = |bytes: &[u8]| RequestPart::Media(MediaFile::new(bytes.to_vec()));
    let send = |parts: Vec<RequestPart>| {
        let request = Request { prompt: Prompt::Parts(parts), options: greedy() };
        let bytes = serde_json::to_vec(&request).unwrap();
        let (sender, receiver) = channel();
        let sink = Box::new(move |event| sender.send(event).is_ok());
        runner.submit(serde_json::from_slice(&bytes).unwrap(), sink).map(|handle| {
            handle.detach();
            finish(&receiver).1
        })
    };
    let cut = tokenize_with_media(&runner, "look at <picture> and <picture> now", &[&one, &two]);
    let expected = finish(&ask(&runner, cut.clone(), greedy())).1;
    let sent = send(vec![text("look at "), file(&one), text(" and "), file(&two), text(" now")]).unwrap();
    assert_eq!((sent.tokens, sent.prompt_tokens), (expected.tokens, expected.prompt_tokens));
    assert_eq!(sent.reused_tokens + 1, sent.prompt_tokens, "they are the same media");
    let words = send(vec![text("look at"), text(" nothing")]).unwrap();
    assert!(!words.tokens.is_empty());
    assert!(
        matches!(send(vec![file(b"x")]), Err(SubmitError::UnusableMedia(why)) if why.contains("image 1"))
    );
}

#[test]
fn bad_pictures_and_blind_models_are_refused_before_they_are_queued() {
    let seeing = seeing(Shape::TinyLlama);
    let seeing_runner = runner(&seeing.model.path, seeing.settings(wide(Residency::Resident)), 1);
    let tokenize_with_media = |runner: &Runner, text: &str, pictures: &[&[u8]]| {
        runner.text().tokenize_text_with_media(&text.replace("<picture>", marker()), pictures)
    };
    assert!(matches!(
        tokenize_with_media(&seeing_runner, "<picture>", &[b"x"]),
        Err(MediaPromptError::Picture { number: 1, .. })
    ));
    let good = picture(1);
    let missing = tokenize_with_media(&seeing_runner, "<picture> <picture>", &[&good]);
    assert_eq!(missing.err(), Some(MediaPromptError::Template { shown: 2, media: 1 }));
    let many = vec![b"x".as_slice(); MOST_PICTURES + 1];
    let refused = tokenize_with_media(&seeing_runner, &"<picture>".repeat(many.len()), &many);
    let pictures = many.len();
    assert_eq!(refused.err(), Some(MediaPromptError::TooMany { pictures }), "before any is read");
    let blind = runner(&seeing.model.path, wide(Residency::Resident), 1);
    assert_eq!(tokenize_with_media(&blind, "<picture>", &[&good]).err(), Some(MediaPromptError::Blind));
    assert!(seeing_runner.info().modalities.pictures && !blind.info().modalities.any());
    // Numbers of pictures without the pictures.
    let prompt = tokenize_with_media(&seeing_runner, "<picture> x", &[&good]).unwrap();
    let bare = MediaPrompt::from(prompt.tokens.clone());
    let refused = seeing_runner.submit_cut(bare, greedy(), Box::new(|_| true));
    assert!(matches!(refused.err(), Some(SubmitError::BadToken(token)) if token < 0));
    let cut = MediaPrompt { tokens: prompt.tokens[2..].to_vec(), media: prompt.media };
    let refused = seeing_runner.submit_cut(cut, greedy(), Box::new(|_| true));
    assert_eq!(refused.err(), Some(SubmitError::BadMedia));
}

#[test]
fn rows_count_in_the_context_and_nothing_is_shifted_out_of_it() {
    let seeing = seeing(Shape::TinyQwen2Vl);
    let load = |context| seeing.settings(settings(Residency::Resident).with_context(context).with_ubatch(16));
    let large = synth::picture(1, 220, 220);
    let runner = runner(&seeing.model.path, load(256), 1);
    let prompt = tokenize_with_media(&runner, &"<picture>".repeat(6), &[large.as_slice(); 6]);
    assert!(prompt.media.rows() > 256);
    let refused = runner.submit_cut(prompt, greedy(), Box::new(|_| true));
    assert!(matches!(refused.err(), Some(SubmitError::PromptTooLong { .. })));
    let prompt = tokenize_with_media(&runner, "<picture> x", &[&large]);
    let length = prompt.tokens.len();
    let context = runner.status().context_length as usize;
    let endless = Options { max_tokens: None, shift: Some(4), ignore_end: true, num_ctx: None, ..greedy() };
    let (_, finished) = finish(&ask(&runner, prompt, endless));
    assert_eq!(finished.finish, Finish::ContextFull);
    assert_eq!(length + finished.tokens.len(), context + 1);
}

#[test]
fn conversations_with_pictures_are_not_written_to_disk_and_others_are() {
    let seeing = seeing(Shape::TinyLlama);
    let folder = tempfile::tempdir().unwrap();
    let serving =
        RunnerSettings { kv_cache_dir: Some(folder.path().to_owned()), ..RunnerSettings::default() };
    let load = seeing.settings(settings(Residency::Resident).with_context(512));
    let files = || fs::read_dir(folder.path()).unwrap().count();
    let runner = runner_with(&seeing.model.path, load, 1, serving);
    let long = "many words ".repeat(20);
    finish(&ask(
        &runner,
        tokenize_with_media(&runner, &format!("<picture> {long}"), &[&picture(1)]),
        greedy(),
    ));
    runner.stop(true);
    assert_eq!(files(), 0);
    let load = seeing.settings(settings(Residency::Resident).with_context(512));
    let serving =
        RunnerSettings { kv_cache_dir: Some(folder.path().to_owned()), ..RunnerSettings::default() };
    let runner = runner_with(&seeing.model.path, load, 1, serving);
    finish(&ask(&runner, tokenize_with_media(&runner, &long, &[]), greedy()));
    runner.stop(true);
    assert_eq!(files(), 1);
}

#[test]
fn a_context_that_grows_keeps_the_rows_of_pictures() {
    for shape in SHAPES {
        let seeing = seeing(shape);
        let load = seeing.settings(settings(Residency::Resident).with_context(256).with_ubatch(16));
        let runner = runner(&seeing.model.path, load, 1);
        let prompt = tokenize_with_media(&runner, "look at <picture> now", &[&picture(1)]);
        let options = || Options { max_tokens: Some(4), ..greedy() };
        let (text, _) = finish(&ask(&runner, prompt.clone(), options()));
        let wider = Options { num_ctx: Some(1500), ..options() };
        let (again, finished) = finish(&ask(&runner, prompt.clone(), wider));
        assert!(settled(&runner).context_length >= 1500, "{shape}");
        assert_eq!((again, finished.reused_tokens), (text, prompt.tokens.len() - 1), "{shape}");
    }
}

#[test]
fn the_plan_counts_the_projector_before_anything_is_loaded() {
    let seeing = seeing(Shape::TinyLlama);
    let path = &seeing.model.path;
    let bare = least_bytes(path, &settings(Residency::Auto));
    let with = least_bytes(path, &seeing.settings(settings(Residency::Auto)));
    let planned =
        prepare(ModelSource::open(path).unwrap(), seeing.settings(settings(Residency::Auto))).unwrap();
    let projector = planned.projector.as_ref().unwrap().bytes;
    assert!(projector > 100_000);
    assert_eq!(with, bare + projector);
    assert_eq!(planned.plan.ledger.bytes_for(Purpose::Media), projector);
    let too_little =
        seeing.settings(settings(Residency::Auto)).with_budget_bytes(with - 1).with_kv_may_shrink(false);
    match prepare(ModelSource::open(path).unwrap(), too_little) {
        Err(LoadError::Plan(error)) => assert!(error.to_string().contains("media "), "{error}"),
        other => panic!("{:?}", other.map(|planned| planned.plan)),
    }
    let runner = runner(path, seeing.settings(wide(Residency::Resident)), 1);
    assert!(runner.status().memory_bytes > projector);
}

#[test]
fn a_projector_of_another_model_is_an_error_of_the_load_and_so_is_a_damaged_one() {
    let seeing = seeing(Shape::TinyLlama);
    let load = |bytes: &[u8]| {
        fs::write(&seeing.projector, bytes).unwrap();
        let planned = prepare(
            ModelSource::open(&seeing.model.path).unwrap(),
            seeing.settings(settings(Residency::Resident)),
        );
        planned.and_then(|planned| hypura_engine::load::load(planned, &mut |_, _| {})).err()
    };
    let wrong = load(&ProjectorKind::Mlp.file(128, 1).unwrap()).expect("an error").to_string();
    assert!(wrong.contains("mismatch") && wrong.contains("128"), "{wrong}");
    let good = ProjectorKind::Mlp.file(256, 1).unwrap();
    assert!(load(&good[..good.len() / 2]).is_some());
    assert!(load(b"no gguf").is_some());
    assert!(load(&fs::read(&seeing.model.path).unwrap()).is_some(), "a model is no projector");
    assert!(load(&good).is_none());
}

#[test]
fn a_picture_of_rows_that_see_each_other_must_fit_one_graph() {
    let seeing = seeing(Shape::TinyGemma3);
    // The plan makes room for one.
    let planned = prepare(
        ModelSource::open(&seeing.model.path).unwrap(),
        seeing.settings(settings(Residency::Resident).with_ubatch(4)),
    );
    assert!(planned.unwrap().plan.context.ubatch_tokens >= 16);
    let mut session = seeing.session(settings(Residency::Resident).with_ubatch(4));
    let outcome = run(&mut session, "<picture>", &[&picture(1)]);
    assert_eq!(outcome.finish, Finish::Length);
    let text = GenerateError::ImageTooLong { rows: 9, most: 4 }.to_string();
    assert!(text.contains('9') && text.contains('4'));
}

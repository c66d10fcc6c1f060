//! What a model remembers, what it may take for that, and what becomes of one that died.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::serve::{PATIENCE, ask, chat, finish, greedy, runner, runner_with, settled, submit};
use common::{demo_path, least_bytes, settings, streaming, tiny, tokens};
use hypura_core::gguf::Value;
use hypura_core::plan::{Mode, Purpose, Residency};
use hypura_core::synth::{Quant, Shape};
use hypura_engine::budget::SharedMemory;
use hypura_engine::load::{LoadSettings, load_watched, prepare};
use hypura_engine::request::{Event, Options, Request, SubmitError};
use hypura_engine::serve::{Runner, RunnerSettings};
use hypura_engine::source::ModelSource;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

fn small(context: u32) -> LoadSettings {
    settings(Residency::Resident).with_context(context)
}

/// Free memory as a test says, and what was promised of it.
#[derive(Debug, Default)]
struct Pool {
    free: AtomicU64,
    promised: Mutex<Vec<u64>>,
    released: AtomicU64,
}

impl SharedMemory for Pool {
    fn free_bytes(&self) -> u64 {
        self.free.load(Ordering::SeqCst)
    }

    fn reserve(&self, wanted_bytes: u64) -> u64 {
        let bytes = wanted_bytes.min(self.free_bytes());
        self.promised.lock().unwrap().push(bytes);
        bytes
    }

    fn release(&self, bytes: u64) {
        self.released.fetch_add(bytes, Ordering::SeqCst);
    }
}

fn sharing(pool: &Arc<Pool>, settings: LoadSettings) -> Runner {
    let memory: Arc<dyn SharedMemory> = Arc::<Pool>::clone(pool);
    runner_with(
        &demo_path(),
        settings,
        1,
        RunnerSettings { memory: Some(memory), ..RunnerSettings::default() },
    )
}

#[test]
fn sequences_that_only_remember_take_no_memory() {
    let plan = |idle_sequences| {
        let settings = small(1024).with_idle_sequences(idle_sequences);
        prepare(ModelSource::open(&demo_path()).unwrap(), settings).unwrap()
    };
    let (without, with) = (plan(0), plan(7));
    assert_eq!(with.plan.context.idle_sequences, 7);
    assert_eq!(with.plan.ledger.bytes_for(Purpose::Kv), without.plan.ledger.bytes_for(Purpose::Kv));
    let more = with.plan.total_bytes() - without.plan.total_bytes();
    assert!(more < without.source.file_bytes() / 50, "{more}");
    // Where the plan works only without them, it works without them.
    let least = least_bytes(&demo_path(), &streaming(0.0).with_idle_sequences(0));
    let tight = streaming(0.0).with_idle_sequences(7).with_budget_bytes(least);
    assert!(prepare(ModelSource::open(&demo_path()).unwrap(), tight).is_ok());
}

#[test]
fn embeddings_do_not_forget_conversations_while_a_row_is_empty() {
    let runner = runner(&demo_path(), small(512), 1);
    let (_, finished) = ask(&runner, chat(&runner, "What is a lynx?"), greedy());
    let mut second = chat(&runner, "What is a lynx?");
    second.extend_from_slice(&finished.tokens);
    second.extend(tokens(5, 500));
    for _ in 0..3 {
        let (sender, receiver) = channel();
        let texts = vec![tokens(9, 300), tokens(7, 400), tokens(8, 350)];
        let _handle = runner.embed(texts, Box::new(move |vectors| sender.send(vectors).unwrap())).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().unwrap().len(), 3);
    }
    let (_, finished) = ask(&runner, second.clone(), greedy());
    assert!(finished.reused_tokens + 8 >= second.len() - 5, "{} of {}", finished.reused_tokens, second.len());
}

#[test]
fn a_context_grows_only_into_memory_that_nobody_else_took() {
    let pool = Arc::new(Pool::default());
    pool.free.store(u64::MAX, Ordering::SeqCst);
    let runner = sharing(&pool, small(256));
    assert!(runner.context_most() > 256);
    // Since it was loaded another model took everything.
    pool.free.store(0, Ordering::SeqCst);
    assert_eq!(runner.context_most(), 256);
    let wide = Options { num_ctx: Some(1024), ..greedy() };
    let refused =
        runner.submit(Request { prompt: tokens(600, 400).into(), options: wide.clone() }, Box::new(|_| true));
    assert!(matches!(refused.map(|_| ()), Err(SubmitError::PromptTooLong { context: 256, .. })));
    ask(&runner, chat(&runner, "What is a lynx?"), wide.clone());
    assert_eq!(settled(&runner).context_length, 256);
    // Some is free again: it takes no more than that, and gives the promise back.
    let before = settled(&runner);
    let some = before.kv_bytes * 2;
    pool.free.store(some, Ordering::SeqCst);
    ask(&runner, chat(&runner, "What is a lynx?"), wide);
    let after = settled(&runner);
    assert!(after.context_length > 256 && after.context_length < 1024, "{}", after.context_length);
    assert!(after.memory_bytes - before.memory_bytes <= some, "{after:?}");
    let promised: u64 = pool.promised.lock().unwrap().iter().sum();
    assert!(promised > 0 && promised == pool.released.load(Ordering::SeqCst));
}

#[test]
fn states_that_there_is_no_room_for_are_computed_again() {
    let pool = Arc::new(Pool::default());
    let runner = sharing(&pool, small(256));
    let (_, finished) = ask(&runner, chat(&runner, "What is a lynx?"), greedy());
    // Exactly the larger context, and nothing for what is in memory: measured with a twin.
    let twin = runner_with(&demo_path(), small(1024), 1, RunnerSettings::default());
    let more = settled(&twin).memory_bytes - settled(&runner).memory_bytes;
    pool.free.store(more * 5 / 4 + 1, Ordering::SeqCst);
    let mut second = chat(&runner, "What is a lynx?");
    second.extend_from_slice(&finished.tokens);
    let (_, finished) = ask(&runner, second, Options { num_ctx: Some(1024), ..greedy() });
    assert!(!finished.tokens.is_empty());
    assert!(settled(&runner).memory_bytes <= settled(&twin).memory_bytes);
}

#[test]
fn a_prompt_that_the_context_did_not_grow_for_fails_alone() {
    let pool = Arc::new(Pool::default());
    pool.free.store(u64::MAX, Ordering::SeqCst);
    let runner = sharing(&pool, small(256));
    // Submitted while there was memory; it is gone when its turn comes.
    let (hold, held) = channel::<()>();
    let mut held = Some(held);
    let first = move |_: Event| {
        if let Some(held) = held.take() {
            let _ = held.recv_timeout(PATIENCE);
        }
        true
    };
    let request = Request { prompt: tokens(20, 300).into(), options: greedy() };
    let _first = runner.submit(request, Box::new(first)).unwrap();
    let wide = Options { num_ctx: Some(1024), ..greedy() };
    let (_second, events) = submit(&runner, tokens(600, 400), wide);
    pool.free.store(0, Ordering::SeqCst);
    hold.send(()).unwrap();
    let event = events.recv_timeout(PATIENCE).unwrap();
    let Event::Failed(error) = event else { unreachable!("{event:?}") };
    assert!(error.to_string().contains("600 tokens"), "{error}");
    let (text, _) = ask(&runner, chat(&runner, "What is a lynx?"), greedy());
    assert!(!text.is_empty());
}

#[test]
fn a_scheduler_that_panicked_says_so_and_leaves_nobody_waiting() {
    let runner = runner(&demo_path(), small(256), 1);
    assert!(runner.is_alive());
    let (hold, held) = channel::<()>();
    let panicking = move |_: Event| -> bool {
        let _ = held.recv_timeout(PATIENCE);
        std::panic::resume_unwind(Box::new("a sink that panics"))
    };
    let request = Request { prompt: tokens(20, 300).into(), options: greedy() };
    let _first = runner.submit(request, Box::new(panicking)).unwrap();
    let (_second, events) = submit(&runner, tokens(20, 300), greedy());
    hold.send(()).unwrap();
    while events.recv_timeout(PATIENCE).is_ok() {}
    assert!(!runner.is_alive());
    assert_eq!(events.recv_timeout(PATIENCE).unwrap_err(), std::sync::mpsc::RecvTimeoutError::Disconnected);
    let refused =
        runner.submit(Request { prompt: tokens(5, 300).into(), options: greedy() }, Box::new(|_| true));
    assert_eq!(refused.map(|_| ()).unwrap_err(), SubmitError::Stopped);
    runner.stop(true);
}

#[test]
fn memory_that_is_told_is_all_that_was_planned() {
    let tiny_mixtral = tiny(Shape::TinyMixtral, Quant::Q5_K, 1);
    let least = least_bytes(&tiny_mixtral.path, &streaming(30.0));
    let dense = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    for (path, settings, mode) in [
        (&tiny_mixtral.path, streaming(30.0), Mode::ExpertStreaming),
        (&tiny_mixtral.path, streaming(30.0).with_budget_bytes(least), Mode::MixedStreaming),
        (&dense.path, streaming(30.0), Mode::DenseStreaming),
        (&dense.path, settings(Residency::Resident), Mode::FullResident),
    ] {
        let settings = settings.with_sequences(1).with_idle_sequences(2);
        let planned = prepare(ModelSource::open(path).unwrap(), settings.clone()).unwrap();
        assert_eq!(planned.plan.mode(), mode);
        let (total, weights) = (planned.plan.total_bytes(), planned.source.shape.total_bytes());
        let status = settled(&runner(path, settings, 1));
        assert_eq!(status.memory_bytes, total, "{mode:?}");
        let in_memory = planned.plan.resident_bytes() + planned.plan.slot_bytes();
        assert_eq!(status.weights_on_disk_bytes, weights.saturating_sub(in_memory), "{mode:?}");
        assert_eq!(status.weights_on_disk_bytes > 0, mode != Mode::FullResident);
    }
}

#[test]
fn rows_that_share_a_step_save_dense_weights_of_a_mixed_stream_too() {
    let model = tiny(Shape::TinyMixtral, Quant::Q5_K, 1);
    // No slots: whatever is saved is the dense weights'.
    let least = least_bytes(&model.path, &settings(Residency::Stream));
    let settings = settings(Residency::Stream).with_budget_bytes(least);
    let runner = runner(&model.path, settings.with_context(64), 2);
    assert_eq!(runner.info().mode, Mode::MixedStreaming);
    let options = Options { ignore_end: true, max_tokens: Some(8), ..greedy() };
    let running: Vec<_> = (0..4).map(|at| submit(&runner, tokens(10 + at, 300), options.clone())).collect();
    running.iter().for_each(|(_, events)| drop(finish(events)));
    assert!(settled(&runner).totals.saved_bytes > 0);
}

#[test]
fn a_model_that_looks_both_ways_takes_a_whole_text_in_one_graph() {
    let ubatch = |causal: bool| {
        let mut source = ModelSource::open(&demo_path()).unwrap();
        let key = format!("{}.attention.causal", source.shape.architecture);
        source.metadata.insert(key, Value::Bool(causal));
        source.shape.is_causal = causal;
        prepare(source, small(1024).with_ubatch(32)).unwrap().plan.context.ubatch_tokens
    };
    assert_eq!(ubatch(false), 1024);
    assert_eq!(ubatch(true), 32);
}

#[test]
fn a_resident_load_tells_how_far_it_is_and_can_be_stopped() {
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    for residency in [Residency::Auto, Residency::Resident] {
        let planned = || prepare(ModelSource::open(&model.path).unwrap(), settings(residency)).unwrap();
        let mut calls = Vec::new();
        let loaded = load_watched(planned(), &mut |done, total| {
            calls.push((done, total));
            true
        });
        assert!(loaded.is_ok());
        assert!(calls.len() > 1 && calls.iter().all(|(done, total)| done <= total), "{calls:?}");
        assert!(calls.last().unwrap().0 > 0);
        let stopped = load_watched(planned(), &mut |_, _| false).map(|_| ()).unwrap_err();
        assert!(stopped.to_string().contains("stopped"), "{stopped}");
    }
}

#[test]
fn a_panic_of_a_load_observer_comes_through_llama_cpp_unharmed() {
    let planned = prepare(ModelSource::open(&demo_path()).unwrap(), settings(Residency::Auto)).unwrap();
    let mut watch = |_, _| -> bool { std::panic::resume_unwind(Box::new("a watch that panics")) };
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        load_watched(planned, &mut watch).map(|_| ())
    }));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"a watch that panics"));
}

#[test]
fn more_sequences_than_a_graph_has_tokens_are_no_reason_to_abort() {
    let settings = small(4).with_ubatch(4);
    let settings = settings.with_sequences(6).with_idle_sequences(7);
    let loaded =
        load_watched(prepare(ModelSource::open(&demo_path()).unwrap(), settings).unwrap(), &mut |_, _| true);
    let runner =
        Runner::start(loaded.unwrap(), RunnerSettings { parallel: 6, ..RunnerSettings::default() }).unwrap();
    let options = Options { max_tokens: Some(1), ignore_end: true, ..greedy() };
    let running: Vec<_> = (0..6).map(|_| submit(&runner, tokens(3, 300), options.clone())).collect();
    running.iter().for_each(|(_, events)| drop(finish(events)));
    let wide = Options { num_ctx: Some(512), ..options };
    assert_eq!(ask(&runner, tokens(100, 300), wide).1.tokens.len(), 1);
}

#[test]
fn a_larger_context_takes_slots_from_a_streamed_model_whose_budget_is_full() {
    for shared in [false, true] {
        let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
        let settings = streaming(60.0).with_context(256).with_poison(true);
        let resident = runner(&model.path, small(1024).with_context(1024), 1);
        let settings = {
            // All of the budget is slots, as where a model is larger than memory.
            let planned = prepare(ModelSource::open(&model.path).unwrap(), settings.clone()).unwrap();
            settings.with_budget_bytes(planned.plan.total_bytes())
        };
        let pool: Arc<dyn SharedMemory> = Arc::new(Pool::default());
        let serving = RunnerSettings { memory: shared.then_some(pool), ..RunnerSettings::default() };
        let runner = runner_with(&model.path, settings, 1, serving);
        let first = tokens(100, 250);
        let (_, finished) = ask(&runner, first.clone(), greedy());
        let before = settled(&runner);
        assert_eq!(before.context_length, 256);
        let most = runner.context_most();
        assert!(most > 256, "{most}");
        let first_answer = finished.tokens;
        let mut second = [&first[..], &first_answer[..]].concat();
        second.extend(tokens(300, 250));
        let wide = Options { num_ctx: Some(512), max_tokens: Some(24), ..greedy() };
        let (_, streamed) = ask(&runner, second.clone(), wide.clone());
        let after = settled(&runner);
        assert!(after.context_length >= 512, "{after:?}");
        assert!(after.kv_bytes > before.kv_bytes, "{after:?}");
        assert!(after.weights_on_disk_bytes > before.weights_on_disk_bytes, "fewer slots: {after:?}");
        assert!(after.memory_bytes <= before.memory_bytes, "{before:?} {after:?}");
        // What was in memory stayed there, and fewer slots change no token of the same steps.
        assert!(streamed.reused_tokens > 100, "{}", streamed.reused_tokens);
        let as_long = Options { max_tokens: u32::try_from(first_answer.len()).ok(), ..greedy() };
        assert_eq!(ask(&resident, first, as_long).1.tokens, first_answer, "shared: {shared}");
        let (_, reference) = ask(&resident, second, wide);
        assert_eq!(reference.reused_tokens, streamed.reused_tokens, "shared: {shared}");
        assert_eq!(streamed.tokens, reference.tokens, "shared: {shared}");
    }
}

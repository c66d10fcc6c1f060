//! What a runner that a file has taken over may say: messages with any byte changed, lost or repeated, in any
//! order. The server ends it or goes on; each request ends once, and nothing stays reserved.
//!
//! `make fuzz` sets HYPURA_FUZZ_SECONDS, and other streams are made until so long is over.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hypura_engine::budget::SharedMemory;
use hypura_engine::request::Event;
use hypura_engine::serve::RunnerStatus;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::confine::Confinement;
use super::frame;
use super::limits::Limits;
use super::message::{Answer, Call, FromRunner, PromptAnswer, ToRunner};
use super::tests::{Pool, done, kit, taken_up};
use crate::Failure;
use crate::models::backend::LoadProgress;

/// One message of each kind, as runners say them.
fn said() -> Vec<FromRunner> {
    let status = || Box::new(RunnerStatus::default());
    let answer = |answer| FromRunner::Answer { id: 1, answer };
    let text = Event::Text { text: "a\u{e4}".to_owned(), tokens: Vec::new() };
    let progress = Event::Progress { processed: 1, total: 2, reused: 0, elapsed: Duration::from_secs(1) };
    let prompt = PromptAnswer {
        tokens: vec![1, -2],
        stops: vec!["</s>".to_owned()],
        grammar: None,
        kept: Some(3),
        has_parser: true,
    };
    vec![
        FromRunner::Confined(Confinement::default()),
        FromRunner::Planned(Err(Failure::internal("x"))),
        FromRunner::Progress(LoadProgress::default()),
        FromRunner::Loaded(Err(Failure::bad_request("y"))),
        answer(Ok(Answer::Done)),
        answer(Ok(Answer::Text("t".to_owned()))),
        answer(Ok(Answer::Tokens(Some(vec![1, 2, 3])))),
        answer(Ok(Answer::Prompt(Box::new(prompt)))),
        answer(Ok(Answer::Status { status: status(), is_open: true })),
        answer(Err(Failure::busy())),
        FromRunner::Event { request: 0, event: text, deltas: Vec::new() },
        FromRunner::Event { request: 0, event: progress, deltas: Vec::new() },
        FromRunner::Event { request: 0, event: done(), deltas: Vec::new() },
        FromRunner::Embedded { request: 0, vectors: Ok(vec![vec![1.0, f32::NAN]]) },
        FromRunner::Over { request: 0 },
        FromRunner::Alive { status: Some(status()), is_open: true },
        FromRunner::Reserve { id: 1, bytes: 30 },
        FromRunner::FreeBytes { id: 2 },
        FromRunner::Release { bytes: 10 },
        FromRunner::Tried(Ok(1)),
        FromRunner::Quantizing { done: 1, all: 2 },
        FromRunner::Stopped,
    ]
}

/// What becomes of a message on the way.
#[derive(Clone, Debug)]
enum Change {
    None,
    Byte(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Long(prop::sample::Index, Vec<u8>),
    Length(u32),
}

fn change() -> impl Strategy<Value = Change> {
    let odd = prop_oneof![Just(0xff), Just(0x80), Just(0), any::<u8>()];
    prop_oneof![
        3 => Just(Change::None),
        6 => (any::<prop::sample::Index>(), odd).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Change::Cut),
        2 => (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Change::Long(at, bytes)),
        1 => any::<u32>().prop_map(Change::Length),
    ]
}

/// The bytes that go over the wire. The length is told as it is, unless that is what is changed.
fn changed(message: &FromRunner, change: &Change) -> Vec<u8> {
    let mut bytes = frame::encode(message).unwrap().split_off(4);
    let mut length = None;
    match change {
        Change::None => {}
        Change::Byte(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Change::Long(at, more) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Length(claimed) => length = Some(*claimed),
    }
    let length = length.unwrap_or_else(|| u32::try_from(bytes.len()).unwrap());
    [&length.to_le_bytes()[..], &bytes].concat()
}

/// Says all that, and goes away.
fn is_survived(stream: &[(prop::sample::Index, Change)]) -> Result<(), TestCaseError> {
    let mut kit = kit(Limits::default());
    let pool = Arc::new(Pool::default());
    kit.link.grant(10, Arc::clone(&pool) as Arc<dyn SharedMemory>);
    kit.link.loaded(RunnerStatus::default());
    let (_, events) = taken_up(&mut kit);
    let asking = Arc::clone(&kit.link);
    let call = std::thread::spawn(move || asking.call(Call::Detokenize { tokens: vec![1] }, Duration::MAX));
    let _: ToRunner = super::tests::hear(&mut kit.theirs);
    let all = said();
    for (at, change) in stream {
        // One that was ended hears nothing more.
        let _ = kit.theirs.write_all(&changed(&all[at.index(all.len())], change));
    }
    drop(kit.theirs);
    prop_assert!(kit.link.wait_for_end(Duration::from_secs(20)), "it is never over");
    let _ = call.join().unwrap();
    let heard: Vec<Event> = events.iter().collect();
    let last = heard.iter().filter(|event| matches!(event, Event::Done(_) | Event::Failed(_))).count();
    prop_assert!(last <= 1, "{last} ends of one request");
    prop_assert_eq!(pool.free_bytes(), 100, "something stays reserved");
    prop_assert!(kit.kills.load(Ordering::SeqCst) <= 1);
    Ok(())
}

#[test]
fn no_runner_harms_the_server_whatever_it_says() {
    let (start, seconds) = (Instant::now(), std::env::var("HYPURA_FUZZ_SECONDS").ok());
    let long = Duration::from_secs(seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(0));
    let streams = prop::collection::vec((any::<prop::sample::Index>(), change()), 1..12);
    let mut rounds = 0;
    while rounds == 0 || start.elapsed() < long {
        let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
        let survived = TestRunner::new(config).run(&streams, |stream| is_survived(&stream));
        survived.unwrap_or_else(|error| panic!("{error}"));
        rounds += 1;
    }
    println!("{} streams", rounds * 500);
}

/// The other direction, and all that is in a message: reading one is bounded and no panic.
#[test]
fn changed_messages_are_read_or_refused() {
    let streams = (any::<prop::sample::Index>(), prop::collection::vec(change(), 1..4));
    let config = Config { cases: 4000, failure_persistence: None, ..Config::default() };
    let all = said();
    let read = TestRunner::new(config).run(&streams, |(at, changes)| {
        for change in &changes {
            let bytes = changed(&all[at.index(all.len())], change);
            let _ = frame::receive::<FromRunner>(&mut &*bytes);
            let _ = frame::receive::<ToRunner>(&mut &*bytes);
        }
        Ok(())
    });
    read.unwrap_or_else(|error| panic!("{error}"));
}

//! One end of a connection against a scripted other end.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hypura_engine::budget::SharedMemory;
use hypura_engine::request::{Event, Finish, Options, RequestErrorKind};

use super::connect::connect;
use super::crashes::Crashes;
use super::frame;
use super::limits::Limits;
use super::link::{Link, Listener, Owner};
use super::message::{Answer, Call, FromRunner, Submit, ToRunner};
use super::process::{Death, Peer};

/// A runner that is a socket: killing it closes the connection.
struct Scripted {
    stream: UnixStream,
    kills: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
    /// It waits for a disk that does not answer: not even a kill ends it.
    undead: Arc<AtomicBool>,
}

impl Peer for Scripted {
    fn kill(&self) {
        self.kills.fetch_add(1, Ordering::SeqCst);
        if self.undead.load(Ordering::SeqCst) {
            return;
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn reap(&self) -> Death {
        Death { how: "its process failed: GGML_ASSERT(ne0 > 0) failed".to_owned(), is_fault: true }
    }

    fn own_bytes(&self) -> Option<u64> {
        Some(self.bytes.load(Ordering::SeqCst))
    }
}

pub(super) struct Kit {
    pub link: Arc<Link>,
    pub theirs: UnixStream,
    pub kills: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
    undead: Arc<AtomicBool>,
    crashes: Arc<Crashes>,
}

pub(super) fn kit(limits: Limits) -> Kit {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (kills, bytes, undead) = (Arc::default(), Arc::default(), Arc::<AtomicBool>::default());
    let peer = Scripted {
        stream: ours.try_clone().unwrap(),
        kills: Arc::clone(&kills),
        bytes: Arc::clone(&bytes),
        undead: Arc::clone(&undead),
    };
    let crashes = Arc::new(Crashes::new(Duration::from_secs(60)));
    let owner = Owner { model: "m".to_owned(), weights: "w".to_owned(), crashes: Arc::clone(&crashes) };
    let link = connect(owner, limits, Box::new(peer), ours).unwrap();
    Kit { link, theirs, kills, bytes, undead, crashes }
}

pub(super) fn hear(stream: &mut UnixStream) -> ToRunner {
    frame::receive(stream).unwrap().unwrap()
}

fn say(stream: &mut UnixStream, message: &FromRunner) {
    use std::io::Write as _;
    stream.write_all(&frame::encode(message).unwrap()).unwrap();
}

fn submit() -> Call {
    Call::Submit(Box::new(Submit { tokens: vec![1], prompt: None, options: Options::default() }))
}

/// A listener, and what it hears.
fn listener() -> (Listener, mpsc::Receiver<Event>) {
    let (sender, events) = mpsc::channel();
    let sink = Box::new(move |event| sender.send(event).is_ok());
    (Listener::Generate { sink, deltas: None }, events)
}

/// A request that the runner has taken up: its number, and what its listener hears.
pub(super) fn taken_up(kit: &mut Kit) -> (u64, mpsc::Receiver<Event>) {
    let asking = Arc::clone(&kit.link);
    let (listener, events) = listener();
    let request = std::thread::spawn(move || asking.request(submit(), listener));
    let ToRunner::Call { id, .. } = hear(&mut kit.theirs) else { panic!("a call") };
    say(&mut kit.theirs, &FromRunner::Answer { id, answer: Ok(Answer::Done) });
    assert_eq!(request.join().unwrap().unwrap(), id);
    (id, events)
}

#[derive(Debug, Default)]
pub(super) struct Pool(AtomicU64);

impl SharedMemory for Pool {
    fn free_bytes(&self) -> u64 {
        100 - self.0.load(Ordering::SeqCst)
    }

    fn reserve(&self, wanted_bytes: u64) -> u64 {
        let bytes = wanted_bytes.min(self.free_bytes());
        self.0.fetch_add(bytes, Ordering::SeqCst);
        bytes
    }

    fn release(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::SeqCst);
    }
}

#[test]
fn a_runner_that_dies_ends_all_that_it_was_asked_and_gives_back_what_it_reserved() {
    let mut kit = kit(Limits::default());
    let pool = Arc::new(Pool::default());
    kit.link.grant(10, Arc::clone(&pool) as Arc<dyn SharedMemory>);
    let asking = Arc::clone(&kit.link);
    let call = std::thread::spawn(move || asking.call(Call::Detokenize { tokens: vec![1] }, Duration::MAX));
    assert!(matches!(hear(&mut kit.theirs), ToRunner::Call { call: Call::Detokenize { .. }, .. }));
    let (_, events) = taken_up(&mut kit);
    say(&mut kit.theirs, &FromRunner::Reserve { id: 7, bytes: 30 });
    assert!(matches!(hear(&mut kit.theirs), ToRunner::Memory { id: 7, bytes: 30 }));
    assert_eq!(pool.free_bytes(), 70);
    drop(kit.theirs);
    let failure = call.join().unwrap().unwrap_err();
    let words = ["model 'm' failed", "GGML_ASSERT(ne0 > 0) failed"];
    assert!(words.iter().all(|word| failure.message.contains(word)), "{failure}");
    let Event::Failed(error) = events.recv().unwrap() else { panic!("a failure") };
    assert_eq!((error.kind, error.message), (RequestErrorKind::Engine, failure.message.clone()));
    assert!(events.recv().is_err(), "once");
    assert_eq!(pool.free_bytes(), 100, "what it had reserved is free");
    assert!(!kit.link.is_alive());
    assert_eq!(kit.link.call(Call::Status, Duration::MAX).unwrap_err(), failure, "later ones are told too");
}

/// A runner that said that it takes no more requests counted as nothing while it still had its memory.
#[test]
fn a_runner_holds_its_memory_until_its_process_is_gone() {
    let mut kit = kit(Limits::default());
    let status = || {
        let mut status = hypura_engine::serve::RunnerStatus::default();
        status.memory_bytes = 50;
        status
    };
    kit.link.loaded(status());
    say(&mut kit.theirs, &FromRunner::Alive { status: Some(Box::new(status())), is_open: false });
    let start = std::time::Instant::now();
    while kit.link.is_alive() {
        assert!(start.elapsed() < Duration::from_secs(10), "it said that it takes nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(kit.link.held_bytes(), 50);
    drop(kit.theirs);
    assert!(kit.link.wait_for_end(Duration::from_secs(10)));
    assert_eq!(kit.link.held_bytes(), 0);
}

#[test]
fn what_ends_a_runner_counts_against_its_file_until_it_has_answered() {
    for answers in [false, true] {
        let mut kit = kit(Limits::default());
        kit.crashes.note("w", "before", false);
        kit.link.loaded(hypura_engine::serve::RunnerStatus::default());
        if answers {
            let (id, events) = taken_up(&mut kit);
            let done = FromRunner::Event { request: id, event: done(), deltas: Vec::new() };
            say(&mut kit.theirs, &done);
            assert!(matches!(events.recv().unwrap(), Event::Done(_)));
        }
        drop(kit.theirs);
        assert!(kit.link.wait_for_end(Duration::from_secs(10)));
        assert_eq!(kit.crashes.check("m", "w").is_err(), !answers);
    }
}

pub(super) fn done() -> Event {
    let outcome = r#"{"finish":"End","prompt_tokens":1,"reused_tokens":0,"tokens":[],"stop":null,
        "prefill":{"secs":0,"nanos":0},"first_token":{"secs":0,"nanos":0},"token_times":[],
        "total":{"secs":0,"nanos":0},"prefill_stats":null,"decode_stats":null,"logits_hash":null}"#;
    let mut outcome: serde_json::Value = serde_json::from_str(outcome).unwrap();
    let stats = serde_json::to_value(hypura_engine::stream::StreamStats::default()).unwrap();
    outcome["prefill_stats"] = stats.clone();
    outcome["decode_stats"] = stats;
    let speculation = hypura_engine::request::SpeculationStats::default();
    outcome["speculation"] = serde_json::to_value(speculation).unwrap();
    let outcome: hypura_engine::request::Outcome = serde_json::from_value(outcome).unwrap();
    assert_eq!(outcome.finish, Finish::End);
    Event::Done(Box::new(outcome))
}

#[test]
fn a_runner_that_is_silent_is_ended() {
    let kit = kit(Limits { silence: Duration::from_millis(200), ..Limits::default() });
    let failure = kit.link.end_failure();
    assert!(failure.message.contains("hung"), "{failure}");
    assert_eq!(kit.kills.load(Ordering::SeqCst), 1);
}

/// What the model says of itself once a second.
fn at_work(moved: u64, active: usize) -> FromRunner {
    let mut status = hypura_engine::serve::RunnerStatus::default();
    (status.moved, status.active) = (moved, active);
    FromRunner::Alive { status: Some(Box::new(status)), is_open: true }
}

/// A thread that computes can hang while the process is as talkative as ever.
#[test]
fn a_runner_that_hangs_in_the_middle_of_an_answer_is_ended_with_one_error() {
    let mut kit = kit(Limits { step: Duration::from_millis(300), ..Limits::default() });
    kit.link.loaded(hypura_engine::serve::RunnerStatus::default());
    let (_, events) = taken_up(&mut kit);
    let mut moved = 0;
    let mut say_for = |moves: u64, times: usize| {
        for _ in 0..times {
            moved += moves;
            say(&mut kit.theirs, &at_work(moved, 1));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    say_for(1, 12);
    assert!(events.try_recv().is_err(), "it is slow, and works");
    say_for(0, 4);
    assert!(events.try_recv().is_err(), "that is no time");
    let start = std::time::Instant::now();
    let error = loop {
        if let Ok(event) = events.recv_timeout(Duration::from_millis(50)) {
            break event;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it hangs for ever");
        if kit.kills.load(Ordering::SeqCst) == 0 {
            say(&mut kit.theirs, &at_work(moved, 1));
        }
    };
    let Event::Failed(error) = error else { panic!("a failure") };
    let words = ["model 'm' failed", "hung: nothing was computed or read for"];
    assert!(words.iter().all(|word| error.message.contains(word)), "{}", error.message);
    assert!(events.recv().is_err(), "once");
}

/// One whose thread hung in the kernel had its requests wait for as long as that took.
#[test]
fn whoever_asked_a_runner_that_does_not_even_die_is_told() {
    let limits = Limits { dying: Duration::from_millis(300), ..Limits::default() };
    let mut kit = kit(limits);
    let pool = Arc::new(Pool::default());
    kit.link.grant(10, Arc::clone(&pool) as Arc<dyn SharedMemory>);
    kit.undead.store(true, Ordering::SeqCst);
    let (_, events) = taken_up(&mut kit);
    say(&mut kit.theirs, &FromRunner::Reserve { id: 7, bytes: 30 });
    assert!(matches!(hear(&mut kit.theirs), ToRunner::Memory { id: 7, bytes: 30 }));
    let late = kit.link.call(Call::Detokenize { tokens: Vec::new() }, Duration::from_millis(100));
    assert!(late.unwrap_err().message.contains("model 'm' failed: its process did not answer within"));
    let Event::Failed(error) = events.recv_timeout(Duration::from_secs(10)).unwrap() else {
        panic!("a failure")
    };
    assert!(error.message.contains("did not answer within"), "{}", error.message);
    assert!(!kit.link.is_alive() && kit.link.call(Call::Status, Duration::MAX).is_err());
    assert_eq!(pool.free_bytes(), 70, "it has its memory as long as it is there");
    drop(kit.theirs);
    assert!(kit.link.wait_for_end(Duration::from_secs(10)));
    assert_eq!(pool.free_bytes(), 100);
    assert!(events.recv().is_err(), "once");
}

#[test]
fn a_runner_that_nobody_asks_anything_may_rest() {
    let mut kit = kit(Limits { step: Duration::from_millis(100), ..Limits::default() });
    kit.link.loaded(hypura_engine::serve::RunnerStatus::default());
    for _ in 0..10 {
        say(&mut kit.theirs, &at_work(7, 0));
        std::thread::sleep(Duration::from_millis(30));
    }
    assert!(kit.link.is_alive());
}

#[test]
fn a_call_that_is_late_ends_the_runner() {
    let kit = kit(Limits::default());
    let late = kit.link.call(Call::Detokenize { tokens: Vec::new() }, Duration::from_millis(100));
    assert!(late.unwrap_err().message.contains("did not answer within"), "says why");
    assert_eq!(kit.kills.load(Ordering::SeqCst), 1);
}

#[test]
fn a_runner_that_takes_more_memory_than_it_was_given_is_ended() {
    let kit = kit(Limits { slack_bytes: 1 << 20, ..Limits::default() });
    kit.link.grant(5 << 20, Arc::new(Pool::default()));
    kit.bytes.store(6 << 20, Ordering::SeqCst);
    assert!(!kit.link.wait_for_end(Duration::from_millis(400)), "that is what it may have");
    kit.bytes.store((6 << 20) + 1, Ordering::SeqCst);
    assert!(kit.link.end_failure().message.contains("took 6 MiB of memory, and 5 MiB"), "says how much");
}

#[test]
fn a_runner_that_talks_nonsense_is_ended() {
    use std::io::Write as _;
    for bytes in [&[0xff; 8][..], &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]] {
        let mut kit = kit(Limits::default());
        kit.theirs.write_all(bytes).unwrap();
        assert!(kit.link.end_failure().message.contains("cannot be understood"));
    }
}

#[test]
fn a_request_that_nobody_listens_to_is_cancelled() {
    let mut kit = kit(Limits::default());
    let (id, events) = taken_up(&mut kit);
    drop(events);
    let text = Event::Text { text: "a".to_owned(), tokens: Vec::new() };
    say(&mut kit.theirs, &FromRunner::Event { request: id, event: text, deltas: Vec::new() });
    assert!(matches!(hear(&mut kit.theirs), ToRunner::Cancel { request } if request == id));
}

#[test]
fn frames_are_bounded_and_whole() {
    let bytes = frame::encode(&ToRunner::Memory { id: 1, bytes: u64::MAX }).unwrap();
    let read = |bytes: &[u8]| frame::receive::<ToRunner>(&mut &*bytes);
    assert!(matches!(read(&bytes), Ok(Some(ToRunner::Memory { id: 1, bytes: u64::MAX }))));
    assert!(matches!(read(&[]), Ok(None)), "an end between messages");
    for cut in 1..bytes.len() {
        assert!(read(&bytes[..cut]).is_err(), "{cut}");
    }
    let long = u32::try_from(frame::MOST_BYTES + 1).unwrap().to_le_bytes();
    assert_eq!(read(&long).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn conversations_cross_the_border_as_they_were() {
    use crate::job::{Format, Think};
    use crate::models::backend::ChatInput;
    use serde_json::json;
    let chat = ChatInput {
        messages: vec![json!({"role": "user", "content": "z\u{0}a", "a": 1.5, "b": [null, u64::MAX]})],
        media: vec![vec![Arc::new(vec![0, 255])]],
        tools: vec![json!({"type": "function", "function": {"name": "x", "parameters": {"z": 1, "a": 2}}})],
        format: Format::Schema(json!({"type": "object"})),
        think: Some(Think::Level("high".to_owned())),
        continues: true,
        template: Some("{{ messages }}".to_owned()),
        ..ChatInput::default()
    };
    let bytes = frame::encode(&super::message::Chat::from(&chat)).unwrap();
    let read: super::message::Chat = frame::receive(&mut &*bytes).unwrap().unwrap();
    let read = read.read().unwrap();
    assert_eq!(format!("{read:?}"), format!("{chat:?}"), "keys keep their order, media their bytes");
}

proptest::proptest! {
    #[test]
    fn no_bytes_of_a_runner_are_believed(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let mut framed = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        framed.extend(bytes);
        let _ = frame::receive::<FromRunner>(&mut &*framed);
        let _ = frame::receive::<ToRunner>(&mut &*framed);
    }
}

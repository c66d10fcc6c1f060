//! What the tests of serving share: runners of small models, and requests to them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is how they fail")]

use hypura_engine::load::{LoadSettings, load, prepare};
use hypura_engine::request::{Event, Options, Outcome, Request};
use hypura_engine::serve::{RequestHandle, Runner, RunnerSettings, RunnerStatus};
use hypura_engine::source::ModelSource;
use hypura_engine::{ChatRequest, SamplerOptions, Token};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Each test binary uses its own part of this file; this uses the rest.
const _: fn() = || {
    let _ = (runner, runner_with, greedy, chat, submit, finish, settled, ask);
};

/// Long enough for a slow machine, short enough to end a hanging test.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn runner(path: &Path, settings: LoadSettings, parallel: u32) -> Runner {
    runner_with(path, settings, parallel, RunnerSettings { max_queue: 64, ..RunnerSettings::default() })
}

pub fn runner_with(path: &Path, settings: LoadSettings, parallel: u32, serving: RunnerSettings) -> Runner {
    let settings = settings.with_sequences(parallel).with_idle_sequences(2);
    let loaded = load(prepare(ModelSource::open(path).unwrap(), settings).unwrap(), &mut |_, _| {}).unwrap();
    Runner::start(loaded, RunnerSettings { parallel: parallel as usize, ..serving }).unwrap()
}

pub fn greedy() -> Options {
    Options {
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        max_tokens: Some(24),
        ..Options::default()
    }
}

pub fn chat(runner: &Runner, question: &str) -> Vec<Token> {
    let messages = format!(r#"[{{"role":"user","content":"{question}"}}]"#);
    runner.text().tokenize_chat(&runner.text().apply(&ChatRequest::new(messages)).unwrap())
}

pub fn submit(runner: &Runner, prompt: Vec<Token>, options: Options) -> (RequestHandle, Receiver<Event>) {
    let (sender, receiver): (Sender<Event>, _) = channel();
    let sink = Box::new(move |event| sender.send(event).is_ok());
    (runner.submit(Request { prompt: prompt.into(), options }, sink).unwrap(), receiver)
}

/// Text and end of a request.
pub fn finish(receiver: &Receiver<Event>) -> (String, Outcome) {
    let mut text = String::new();
    loop {
        match receiver.recv_timeout(PATIENCE).unwrap() {
            Event::Text { text: piece, .. } => text.push_str(&piece),
            Event::Done(finished) => return (text, *finished),
            Event::Failed(error) => panic!("{error}"),
            Event::Started { .. } | Event::Progress { .. } => {}
        }
    }
}

/// The status once nothing runs; the last event of a request comes a moment before the status that shows its
/// end.
pub fn settled(runner: &Runner) -> RunnerStatus {
    let start = Instant::now();
    loop {
        let status = runner.status();
        if status.active == 0 && status.queued == 0 {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "{status:?}");
        std::thread::yield_now();
    }
}

pub fn ask(runner: &Runner, prompt: Vec<Token>, options: Options) -> (String, Outcome) {
    let (_handle, receiver) = submit(runner, prompt, options);
    finish(&receiver)
}

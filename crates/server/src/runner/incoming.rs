//! The thread that reads what a runner says, and sees its end.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hypura_engine::ChatDelta;
use hypura_engine::request::{Event, RequestErrorKind};
use hypura_engine::serve::RunnerStatus;

use super::confine::Confinement;
use super::frame;
use super::link::{End, Link, Listener, News, lock};
use super::message::{Answer, FromRunner, ToRunner};

/// Reads until the connection is over, and ends what waits for the runner.
pub(super) fn read(link: &Link, stream: UnixStream) {
    let mut stream = BufReader::new(stream);
    loop {
        match frame::receive(&mut stream) {
            Ok(Some(message)) => {
                *lock(&link.heard) = Instant::now();
                take(link, message);
            }
            Ok(None) => break,
            Err(error) => {
                // One that was killed in the middle of a message, or says what nobody understands.
                tracing::debug!(%error, model = link.owner.model, "from a runner");
                if error.kind() == std::io::ErrorKind::InvalidData {
                    link.condemn("its process said what cannot be understood");
                }
                break;
            }
        }
    }
    finish(link);
}

fn take(link: &Link, message: FromRunner) {
    match message {
        FromRunner::Confined(confinement) => tell(link, confinement),
        FromRunner::Planned(planned) => news(link, News::Planned(planned)),
        FromRunner::Progress(progress) => news(link, News::Progress(progress)),
        FromRunner::Loaded(loaded) => news(link, News::Loaded(loaded)),
        FromRunner::Answer { id, answer } => {
            if let Ok(Answer::Status { status, is_open }) = &answer {
                note(link, status.as_ref().clone(), *is_open);
            }
            let call = lock(&link.state).calls.remove(&id);
            if let Some(call) = call {
                // Whoever asked may have given up.
                let _ = call.send(answer);
            }
        }
        FromRunner::Event { request, event, deltas } => happened(link, request, event, deltas),
        FromRunner::Embedded { request, vectors } => {
            has_answered(link);
            let listener = lock(&link.state).listeners.remove(&request);
            if let Some(listener) = listener
                && let Listener::Embed(sink) = &mut *lock(&listener)
                && let Some(sink) = sink.take()
            {
                sink(vectors);
            }
        }
        FromRunner::Over { request } => {
            let listener = lock(&link.state).listeners.remove(&request);
            drop(listener);
        }
        FromRunner::Alive { status, is_open } => {
            if let Some(status) = status {
                note(link, *status, is_open);
            }
        }
        FromRunner::Reserve { id, bytes } => {
            let memory = lock(&link.state).memory.clone();
            let bytes = memory.map_or(0, |memory| memory.reserve(bytes));
            lock(&link.state).reserved_bytes += bytes;
            // Before it takes them.
            link.limit_memory();
            link.tell(&ToRunner::Memory { id, bytes });
        }
        FromRunner::FreeBytes { id } => {
            let bytes = link.free_bytes();
            link.tell(&ToRunner::Memory { id, bytes });
        }
        FromRunner::Release { bytes } => release(link, bytes),
        // Said by errands alone.
        FromRunner::Tried(_)
        | FromRunner::Advised(_)
        | FromRunner::Quantizing { .. }
        | FromRunner::Quantized(_) => {}
        FromRunner::Stopped => lock(&link.state).stopping = true,
    }
}

/// Logs what holds for a model's process: once for all of them, because a system has its limits or has not.
fn tell(link: &Link, confinement: Confinement) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let Confinement { files, network, system_calls } = confinement;
    let model = &link.owner.model;
    tracing::debug!(model, %files, %network, %system_calls, "a model's process is confined");
    if TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    if confinement.is_whole() {
        tracing::info!(%files, %network, %system_calls, "models are confined");
    } else {
        tracing::warn!(%files, %network, %system_calls, "models are confined in part: see hypura doctor");
    }
}

fn note(link: &Link, status: RunnerStatus, is_open: bool) {
    link.movement.note(&status);
    *lock(&link.status) = status;
    if !is_open {
        link.is_open.store(false, Ordering::Relaxed);
    }
}

fn news(link: &Link, news: News) {
    let receiver = lock(&link.state).news.clone();
    if let Some(receiver) = receiver {
        // Whoever had it loaded may be gone.
        let _ = receiver.send(news);
    }
}

/// Something happened to a request.
fn happened(link: &Link, request: u64, event: Event, deltas: Vec<ChatDelta>) {
    let is_last = matches!(event, Event::Done(_) | Event::Failed(_));
    if matches!(event, Event::Done(_)) {
        has_answered(link);
    }
    let listener = {
        let mut state = lock(&link.state);
        if is_last { state.listeners.remove(&request) } else { state.listeners.get(&request).cloned() }
    };
    let Some(listener) = listener else { return };
    let Listener::Generate { sink, deltas: reader } = &mut *lock(&listener) else { return };
    if let Some(reader) = reader {
        reader.add(&event, deltas);
    }
    if !sink(event) && !is_last {
        link.cancel(request);
    }
}

fn has_answered(link: &Link) {
    if !link.answered.swap(true, Ordering::Relaxed) {
        link.owner.crashes.forgive(&link.owner.weights);
    }
}

/// Gives back what of these bytes was reserved.
fn release(link: &Link, bytes: u64) {
    let (memory, bytes) = {
        let mut state = lock(&link.state);
        let bytes = bytes.min(state.reserved_bytes);
        state.reserved_bytes -= bytes;
        (state.memory.clone(), bytes)
    };
    if let Some(memory) = memory.filter(|_| bytes > 0) {
        memory.release(bytes);
    }
}

/// The connection is over: so is the process, and whatever it was asked.
fn finish(link: &Link) {
    let death = link.peer.reap();
    release(link, u64::MAX);
    let (verdict, stopping) = {
        let state = lock(&link.state);
        (state.verdict.clone(), state.stopping)
    };
    let is_fault = verdict.is_some() || (death.is_fault && !stopping);
    let how = verdict.map_or(death.how, |(reason, _)| reason);
    let end = if stopping && !is_fault {
        let message = "the model was unloaded before the answer was complete".to_owned();
        End { kind: RequestErrorKind::Unloaded, message }
    } else {
        tracing::error!(model = link.owner.model, reason = ?how, "a runner ended");
        End::failed(&link.owner.model, &how)
    };
    if is_fault {
        let loaded = link.is_loaded.load(Ordering::Relaxed);
        link.owner.crashes.note(&link.owner.weights, &crate::without_paths(&how), loaded);
    }
    let ended = {
        let mut state = lock(&link.state);
        state.end = Some(end.clone());
        state.memory = None;
        state.tell(end)
    };
    link.ended.notify_all();
    ended();
}

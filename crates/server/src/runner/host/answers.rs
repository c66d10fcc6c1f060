//! What comes of requests: their events, parsed where their prompt has a parser, on the way to the server.
//!
//! Each request has a thread that takes its events from the scheduler, which never waits for a parser or for
//! the server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use hypura_engine::ChatDelta;
use hypura_engine::media::PromptMedia;
use hypura_engine::request::{Event, Finish, Outcome};

use super::outgoing::Outgoing;
use crate::Failure;
use crate::models::backend::{AnswerParser, Engine, Prompt, PromptInput, Ticket};
use crate::runner::message::{FromRunner, PromptAnswer, Submit};

/// What is kept of a prompt that the server may submit.
struct Kept {
    media: PromptMedia,
    parser: Option<Box<dyn AnswerParser>>,
}

#[derive(Default)]
struct State {
    prompts: HashMap<u64, Kept>,
    tickets: HashMap<u64, Box<dyn Ticket>>,
    /// Threads that tell answers.
    telling: usize,
}

/// The requests of this runner, and the prompts that they will have.
pub(super) struct Answers {
    outgoing: Arc<Outgoing>,
    state: Arc<(Mutex<State>, Condvar)>,
    next_prompt: AtomicU64,
}

fn lock(state: &(Mutex<State>, Condvar)) -> MutexGuard<'_, State> {
    state.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answers {
    pub fn new(outgoing: Arc<Outgoing>) -> Self {
        Self { outgoing, state: Arc::default(), next_prompt: AtomicU64::new(0) }
    }

    /// Keeps what the server cannot have of a prompt.
    pub fn keep(&self, prompt: Prompt) -> PromptAnswer {
        let Prompt { input, stops, grammar, parser } = prompt;
        let PromptInput { tokens, media, .. } = input;
        let has_parser = parser.is_some();
        let kept = (has_parser || !media.is_empty()).then(|| {
            let id = self.next_prompt.fetch_add(1, Ordering::Relaxed);
            lock(&self.state).prompts.insert(id, Kept { media, parser });
            id
        });
        PromptAnswer { tokens, stops, grammar, kept, has_parser }
    }

    /// The server is done with a prompt.
    pub fn forget(&self, prompt: u64) {
        drop(lock(&self.state).prompts.remove(&prompt));
    }

    /// The server is done with a request.
    pub fn cancel(&self, request: u64) {
        let ticket = lock(&self.state).tickets.remove(&request);
        drop(ticket);
    }

    /// Queues a request, whose events go to the server.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit(&self, engine: &dyn Engine, request: u64, submit: Submit) -> Result<(), Failure> {
        let Submit { tokens, prompt, options } = submit;
        let (media, parser) = match prompt {
            None => (PromptMedia::default(), None),
            Some(prompt) => {
                let gone = || Failure::internal("the prompt is gone");
                let mut state = lock(&self.state);
                let kept = state.prompts.get_mut(&prompt).ok_or_else(gone)?;
                (kept.media.clone(), kept.parser.take())
            }
        };
        let (sender, events) = mpsc::channel();
        let sink = Box::new(move |event| sender.send(event).is_ok());
        let input = PromptInput { tokens, media, kept: None };
        let ticket = engine.submit(input, options, sink)?;
        lock(&self.state).tickets.insert(request, ticket);
        let outgoing = Arc::clone(&self.outgoing);
        self.aside(request, move || tell(&outgoing, request, &events, parser));
        Ok(())
    }

    /// Queues texts to embed, whose vectors go to the server.
    ///
    /// # Errors
    /// As [`Engine::embed`].
    pub fn embed(
        &self,
        engine: &dyn Engine,
        request: u64,
        inputs: Vec<Vec<hypura_engine::Token>>,
    ) -> Result<(), Failure> {
        let (sender, vectors) = mpsc::channel();
        let ticket = engine.embed(inputs, Box::new(move |vectors| drop(sender.send(vectors))))?;
        lock(&self.state).tickets.insert(request, ticket);
        let outgoing = Arc::clone(&self.outgoing);
        self.aside(request, move || {
            // None come of a request that was cancelled.
            if let Ok(vectors) = vectors.recv() {
                outgoing.say(&FromRunner::Embedded { request, vectors });
            }
        });
        Ok(())
    }

    /// Tells an answer on a thread of its own; then the request is over.
    fn aside(&self, request: u64, tell: impl FnOnce() + Send + 'static) {
        lock(&self.state).telling += 1;
        let (state, outgoing) = (Arc::clone(&self.state), Arc::clone(&self.outgoing));
        let work = move || {
            tell();
            outgoing.say(&FromRunner::Over { request });
            let mut held = lock(&state);
            held.telling -= 1;
            let ticket = held.tickets.remove(&request);
            drop(held);
            drop(ticket);
            state.1.notify_all();
        };
        if let Err(error) = std::thread::Builder::new().name("answer".to_owned()).spawn(work) {
            // Nothing of this request can be told: the server must not wait for it.
            tracing::error!(%error, "no thread for an answer");
            std::process::abort();
        }
    }

    /// Waits until every answer was told.
    pub fn wait(&self) {
        let mut state = lock(&self.state);
        while state.telling > 0 {
            state = self.state.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// From so many bytes of an answer on its parser, which reads it all again for each piece, may be slower than
/// the model: it then reads more at once, and never falls behind.
const SLOW_BYTES: usize = 2048;

fn tell(
    outgoing: &Outgoing,
    request: u64,
    events: &mpsc::Receiver<Event>,
    mut parser: Option<Box<dyn AnswerParser>>,
) {
    let mut read_bytes = 0;
    let mut next = None;
    while let Some(mut event) = next.take().or_else(|| events.recv().ok()) {
        if let Event::Text { text, tokens } = &mut event
            && parser.is_some()
            && read_bytes > SLOW_BYTES
        {
            while let Ok(more) = events.try_recv() {
                let Event::Text { text: more, tokens: others } = more else {
                    next = Some(more);
                    break;
                };
                text.push_str(&more);
                tokens.extend(others);
            }
        }
        if let Event::Text { text, .. } = &event {
            read_bytes += text.len();
        }
        let deltas = parser.as_mut().map(|parser| parsed(parser.as_mut(), &event)).unwrap_or_default();
        outgoing.say(&FromRunner::Event { request, event, deltas });
    }
}

fn parsed(parser: &mut dyn AnswerParser, event: &Event) -> Vec<ChatDelta> {
    match event {
        Event::Text { text, .. } => parser.push(text),
        Event::Done(outcome) => parser.finish(is_complete(outcome)),
        Event::Started { .. } | Event::Progress { .. } | Event::Failed(_) => Vec::new(),
    }
}

/// Whether the model ended the answer itself.
fn is_complete(outcome: &Outcome) -> bool {
    match outcome.finish {
        Finish::StopString => outcome.stop.is_none(),
        Finish::Length | Finish::ContextFull => false,
        Finish::End | Finish::Repeats | Finish::Stopped => true,
    }
}

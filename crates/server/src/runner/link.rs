//! The connection to one runner: what was asked and is not answered yet, and what becomes of that when the
//! runner ends.
//!
//! One thread reads, one writes, one watches; nobody who sends waits for the runner to read. Invariant: every
//! call and every request that was taken up ends exactly once, by its answer or by the end of the runner.
//! `end` is set by the reading thread alone, after the process is gone and its memory with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use hypura_engine::budget::SharedMemory;
use hypura_engine::request::{EmbedSink, Event, RequestError, RequestErrorKind, Sink};
use hypura_engine::serve::RunnerStatus;

use super::crashes::Crashes;
use super::deltas::Deltas;
use super::frame;
use super::limits::Limits;
use super::message::{Answer, Call, Loaded, Planned, ToRunner};
use super::movement::Movement;
use super::places::{Place, Places};
use super::process::Peer;

use crate::Failure;
use crate::models::backend::LoadProgress;

/// What comes of planning and loading.
pub(super) enum News {
    Planned(Result<Planned, Failure>),
    Progress(LoadProgress),
    Loaded(Result<Box<Loaded>, Failure>),
}

/// Who gets what a request gives.
pub(super) enum Listener {
    Generate { sink: Sink, deltas: Option<Arc<Deltas>> },
    Embed(Option<EmbedSink>),
}

/// Why a runner ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub kind: RequestErrorKind,
    pub message: String,
}

impl End {
    /// Something went wrong in it.
    pub fn failed(model: &str, how: &str) -> Self {
        let message = format!("model '{model}' failed: {}", crate::without_paths(how));
        Self { kind: RequestErrorKind::Engine, message }
    }
}

#[derive(Default)]
pub(super) struct State {
    pub next_id: u64,
    pub calls: HashMap<u64, mpsc::Sender<Result<Answer, Failure>>>,
    pub listeners: HashMap<u64, Arc<Mutex<Listener>>>,
    /// What reads the answers of prompts that the runner keeps.
    pub readers: HashMap<u64, Arc<Deltas>>,
    pub news: Option<mpsc::Sender<News>>,
    pub memory: Option<Arc<dyn SharedMemory>>,
    pub reserved_bytes: u64,
    /// Why we ended it, and when.
    pub verdict: Option<(String, Instant)>,
    /// What those were told who asked a process that does not even die.
    pub given_up: Option<End>,
    /// It was asked to end.
    pub stopping: bool,
    pub end: Option<End>,
}

impl State {
    /// Nobody is answered any more. Gives what tells those who listen, for when nothing is locked.
    pub fn tell(&mut self, end: End) -> impl FnOnce() + use<> {
        let error = RequestError { kind: end.kind, message: end.message };
        self.calls.clear();
        self.news = None;
        let listeners = std::mem::take(&mut self.listeners);
        move || {
            for listener in listeners.into_values() {
                match &mut *lock(&listener) {
                    Listener::Generate { sink, .. } => drop(sink(Event::Failed(error.clone()))),
                    Listener::Embed(sink) => {
                        sink.take().into_iter().for_each(|sink| sink(Err(error.clone())))
                    }
                }
            }
        }
    }
}

/// Whose runner it is.
pub(super) struct Owner {
    /// The model's name.
    pub model: String,
    /// Its weights.
    pub weights: String,
    pub crashes: Arc<Crashes>,
}

/// The connection to a runner.
pub(super) struct Link {
    pub owner: Owner,
    pub limits: Limits,
    pub peer: Box<dyn Peer>,
    pub outgoing: mpsc::Sender<Vec<u8>>,
    pub state: Mutex<State>,
    pub ended: Condvar,
    pub status: Mutex<RunnerStatus>,
    pub is_open: AtomicBool,
    pub is_loaded: AtomicBool,
    pub answered: AtomicBool,
    /// Bytes that the plan promised; until the model says itself what it holds.
    pub planned_bytes: AtomicU64,
    pub heard: Mutex<Instant>,
    /// Whether what it was asked gets on.
    pub movement: Movement,
    /// For text to be rendered, read or checked.
    text_places: Arc<Places>,
    /// For prompts whose media are decoded, which exist meanwhile.
    media_places: Arc<Places>,
}

/// Prompts with media that are cut at a time.
const MEDIA_AT_ONCE: usize = 2;
/// Most texts at a time, however many processors there are: each may be of 16 MiB.
const TEXTS_AT_ONCE: usize = 8;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// A connection whose messages go to `outgoing`, and on which nobody reads yet.
    pub fn new(owner: Owner, limits: Limits, peer: Box<dyn Peer>, outgoing: mpsc::Sender<Vec<u8>>) -> Self {
        Self {
            owner,
            limits,
            peer,
            outgoing,
            state: Mutex::default(),
            ended: Condvar::new(),
            status: Mutex::default(),
            is_open: AtomicBool::new(true),
            is_loaded: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            planned_bytes: AtomicU64::new(0),
            heard: Mutex::new(Instant::now()),
            movement: Movement::new(limits.step),
            text_places: Places::new(available_parallelism().map_or(2, usize::from).clamp(2, TEXTS_AT_ONCE)),
            media_places: Places::new(MEDIA_AT_ONCE),
        }
    }

    /// A place for a call about text, or about media.
    ///
    /// # Errors
    /// Why the runner ended.
    pub fn place(&self, media: bool) -> Result<Place, Failure> {
        let places = if media { &self.media_places } else { &self.text_places };
        let over = || {
            let state = lock(&self.state);
            state.end.is_some() || state.given_up.is_some()
        };
        places.take(over).ok_or_else(|| self.end_failure())
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    // --- what others see ---

    /// What the runner said last of the model.
    pub fn last_status(&self) -> RunnerStatus {
        lock(&self.status).clone()
    }

    /// Bytes that the model holds, as last reported; nothing, once its process is gone.
    pub fn held_bytes(&self) -> u64 {
        if lock(&self.state).end.is_some() { 0 } else { lock(&self.status).memory_bytes }
    }

    /// Whether it takes requests.
    pub fn is_alive(&self) -> bool {
        let state = lock(&self.state);
        self.is_open.load(Ordering::Relaxed) && state.end.is_none() && state.given_up.is_none()
    }

    pub fn silent_for(&self) -> Duration {
        lock(&self.heard).elapsed()
    }

    /// How long it has not got on with what it was asked, where that is too long. Before the model is there,
    /// whoever loads it looks after that.
    pub fn stuck_for(&self) -> Option<Duration> {
        self.is_loaded.load(Ordering::Relaxed).then(|| self.movement.hangs_for()).flatten()
    }

    /// Memory of its own that the process has; `None` where the system does not say.
    pub fn own_bytes(&self) -> Option<u64> {
        self.peer.own_bytes()
    }

    /// Bytes that the ledger has for it.
    pub fn granted_bytes(&self) -> u64 {
        let held = self.held_bytes().max(self.planned_bytes.load(Ordering::Relaxed));
        held.saturating_add(lock(&self.state).reserved_bytes)
    }

    /// Has the kernel hold it to what it may take, where it can. Files that it has mapped count there, and
    /// give way first; its page tables count, too.
    pub fn limit_memory(&self) {
        let most = self.granted_bytes().saturating_add(self.limits.slack_bytes);
        self.peer.allow(most.saturating_add(self.limits.slack_bytes / 4));
    }

    /// Bytes of memory of all models that nobody holds.
    pub fn free_bytes(&self) -> u64 {
        let memory = lock(&self.state).memory.clone();
        memory.map_or(0, |memory| memory.free_bytes())
    }

    // --- asking ---

    /// Sends the plan or the load, whose news come from the receiver.
    ///
    /// # Errors
    /// When the message cannot be sent.
    pub fn expect_news(&self, message: &ToRunner) -> Result<mpsc::Receiver<News>, Failure> {
        let (sender, news) = mpsc::channel();
        lock(&self.state).news = Some(sender);
        self.send(message)?;
        Ok(news)
    }

    /// The model is loaded into so many bytes, and may ask more of this memory.
    pub fn grant(&self, bytes: u64, memory: Arc<dyn SharedMemory>) {
        self.planned_bytes.store(bytes, Ordering::Relaxed);
        lock(&self.state).memory = Some(memory);
        self.limit_memory();
    }

    /// The model is there: from here on it says itself what it holds.
    pub fn loaded(&self, status: RunnerStatus) {
        self.movement.note(&status);
        *lock(&self.status) = status;
        self.is_loaded.store(true, Ordering::Relaxed);
        self.planned_bytes.store(0, Ordering::Relaxed);
    }

    /// Asks, and waits for the answer; a runner that takes longer than `limit` is ended.
    ///
    /// # Errors
    /// What the answer says, or why the runner ended.
    pub fn call(&self, call: Call, limit: Duration) -> Result<Answer, Failure> {
        self.numbered(call, limit, |_, _| ()).map(|(_, answer)| answer)
    }

    /// The same without an end for a late answer.
    pub fn ask(&self, call: Call, limit: Duration) -> Option<Answer> {
        let (id, receiver) = self.begin(call, |_, _| ()).ok()?;
        let answer = receiver.recv_timeout(limit);
        lock(&self.state).calls.remove(&id);
        answer.ok()?.ok()
    }

    /// Asks something whose number stays in use after its answer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn open(&self, call: Call, limit: Duration) -> Result<(u64, Answer), Failure> {
        self.numbered(call, limit, |_, _| ())
    }

    /// Queues a request. Its number is good for [`Self::cancel`].
    ///
    /// # Errors
    /// As [`Self::call`]; the listener hears nothing then.
    pub fn request(&self, call: Call, listener: Listener) -> Result<u64, Failure> {
        let listener = Arc::new(Mutex::new(listener));
        let mut number = None;
        let taken = self.numbered(call, self.limits.text, |state, id| {
            number = Some(id);
            state.listeners.insert(id, listener);
        });
        if let (Err(_), Some(id)) = (&taken, number) {
            lock(&self.state).listeners.remove(&id);
        }
        taken.map(|(id, _)| id)
    }

    /// Nobody waits for a request any more. Its listener still hears how it ended.
    pub fn cancel(&self, request: u64) {
        if lock(&self.state).listeners.contains_key(&request) {
            self.tell(&ToRunner::Cancel { request });
        }
    }

    fn numbered(
        &self,
        call: Call,
        limit: Duration,
        note: impl FnOnce(&mut State, u64),
    ) -> Result<(u64, Answer), Failure> {
        let (id, receiver) = self.begin(call, note)?;
        let answer = receiver.recv_timeout(limit).or_else(|error| {
            if error == mpsc::RecvTimeoutError::Timeout {
                self.condemn(&format!("its process did not answer within {} s", limit.as_secs()));
            }
            receiver.recv()
        });
        match answer {
            Ok(answer) => answer.map(|answer| (id, answer)),
            Err(_) => Err(self.end_failure()),
        }
    }

    fn begin(
        &self,
        call: Call,
        note: impl FnOnce(&mut State, u64),
    ) -> Result<(u64, mpsc::Receiver<Result<Answer, Failure>>), Failure> {
        let (sender, receiver) = mpsc::channel();
        let id = {
            let mut state = lock(&self.state);
            if let Some(end) = state.end.as_ref().or(state.given_up.as_ref()) {
                return Err(failure_of(end));
            }
            let id = state.next_id;
            state.next_id += 1;
            state.calls.insert(id, sender);
            note(&mut state, id);
            id
        };
        if let Err(failure) = self.send(&ToRunner::Call { id, call }) {
            lock(&self.state).calls.remove(&id);
            return Err(failure);
        }
        Ok((id, receiver))
    }

    fn send(&self, message: &ToRunner) -> Result<(), Failure> {
        let bytes = frame::encode(message).map_err(|error| Failure::bad_request(error.to_string()))?;
        // Where nobody writes any more, the end of the runner answers.
        let _ = self.outgoing.send(bytes);
        Ok(())
    }

    /// Sends what has no answer and is always short.
    pub fn tell(&self, message: &ToRunner) {
        if let Err(error) = self.send(message) {
            tracing::error!(%error, "a message to a runner");
        }
    }

    // --- prompts that the runner keeps ---

    /// Answers of this prompt come with deltas.
    pub fn expect_deltas(&self, prompt: u64, deltas: Arc<Deltas>) {
        lock(&self.state).readers.insert(prompt, deltas);
    }

    pub fn deltas_of(&self, prompt: u64) -> Option<Arc<Deltas>> {
        lock(&self.state).readers.get(&prompt).cloned()
    }

    /// A prompt is done with.
    pub fn forget(&self, prompt: u64) {
        lock(&self.state).readers.remove(&prompt);
        self.tell(&ToRunner::Forget { prompt });
    }

    // --- the end ---

    /// Ends the runner for a reason that its requests are told.
    pub fn condemn(&self, reason: &str) {
        {
            let mut state = lock(&self.state);
            if state.end.is_some() || state.verdict.is_some() {
                return;
            }
            state.verdict = Some((reason.to_owned(), Instant::now()));
        }
        self.peer.kill();
    }

    /// A process that waits for a disk or a driver that does not answer survives even its kill. Whoever asked
    /// it is told all the same; its memory counts until it is gone.
    pub fn give_up_late(&self) {
        let ended = {
            let mut state = lock(&self.state);
            let Some((reason, since)) = &state.verdict else { return };
            if since.elapsed() < self.limits.dying || state.end.is_some() || state.given_up.is_some() {
                return;
            }
            let end = End::failed(&self.owner.model, reason);
            state.given_up = Some(end.clone());
            state.tell(end)
        };
        self.ended.notify_all();
        ended();
    }

    /// Ends the runner at once; nobody needs it any more.
    pub fn abandon(&self) {
        {
            let mut state = lock(&self.state);
            if state.end.is_some() {
                return;
            }
            state.stopping = true;
        }
        self.peer.kill();
    }

    /// Has it end after what runs (`drain`) or now, and waits for that. One that does not is ended.
    pub fn stop(&self, drain: bool) {
        lock(&self.state).stopping = true;
        self.is_open.store(false, Ordering::Relaxed);
        self.tell(&ToRunner::Stop { drain });
        let patience = if drain { Duration::MAX } else { self.limits.silence };
        if !self.wait_for_end(patience) {
            self.abandon();
            self.wait_for_end(KILLED);
        }
    }

    /// Whether it ended within the limit.
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        let state = lock(&self.state);
        if limit == Duration::MAX {
            let ended = self.ended.wait_while(state, |state| state.end.is_none());
            return ended.unwrap_or_else(PoisonError::into_inner).end.is_some();
        }
        let waited = self.ended.wait_timeout_while(state, limit, |state| state.end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.end.is_some()
    }

    /// Why it ended, for a client. Waits for the end.
    pub fn end_failure(&self) -> Failure {
        let over = |state: &mut State| state.end.is_none() && state.given_up.is_none();
        let state = self.ended.wait_while(lock(&self.state), over).unwrap_or_else(PoisonError::into_inner);
        let end = state.end.clone().or_else(|| state.given_up.clone());
        end.map_or_else(|| Failure::internal("the model was unloaded"), |end| failure_of(&end))
    }
}

fn failure_of(end: &End) -> Failure {
    Failure::internal(end.message.clone())
}

/// A link that ends with its last owner, who may count its memory as free then.
pub(super) struct Held(pub Arc<Link>);

/// How long the system may take to end a process that was killed.
const KILLED: Duration = Duration::from_secs(30);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abandon();
        self.0.wait_for_end(KILLED);
    }
}

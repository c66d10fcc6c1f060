//! What all threads of a runner share.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc};

use super::answers::Answers;
use super::memory::{Alive, ServerMemory};
use super::outgoing::Outgoing;
use crate::Failure;
use crate::models::backend::Engine;
use crate::runner::message::FromRunner;

/// A prompt that is asked of an open conversation.
pub(super) struct Render {
    pub id: u64,
    pub messages: Vec<usize>,
}

/// What all threads of a runner share.
pub(super) struct Host {
    pub outgoing: Arc<Outgoing>,
    pub memory: Arc<ServerMemory>,
    pub answers: Answers,
    /// Conversations that are open, by the number of the call that opened them.
    pub chats: Mutex<HashMap<u64, mpsc::Sender<Render>>>,
    pub engine: OnceLock<Arc<dyn Engine>>,
    pub wanted: AtomicBool,
}

impl Host {
    pub fn new(stream: UnixStream) -> Arc<Self> {
        let outgoing = Arc::new(Outgoing::new(stream));
        Arc::new_cyclic(|host| Self {
            memory: Arc::new(ServerMemory::new(Arc::clone(&outgoing), alive(host))),
            answers: Answers::new(Arc::clone(&outgoing)),
            outgoing,
            chats: Mutex::default(),
            engine: OnceLock::new(),
            wanted: AtomicBool::new(true),
        })
    }

    /// The model.
    ///
    /// # Errors
    /// There is none yet.
    pub fn engine(&self) -> Result<&Arc<dyn Engine>, Failure> {
        self.engine.get().ok_or_else(|| Failure::internal("the model is not loaded"))
    }

    pub fn chats(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Render>>> {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody wants the model any more.
    pub fn abandon(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

fn alive(host: &Weak<Host>) -> Weak<dyn Alive> {
    let host: Weak<Host> = Weak::clone(host);
    host
}

impl Alive for Host {
    fn say_alive(&self) {
        let engine = self.engine.get();
        let status = engine.map(|engine| Box::new(engine.status()));
        let is_open = engine.is_none_or(|engine| engine.is_alive());
        self.outgoing.say(&FromRunner::Alive { status, is_open });
    }
}

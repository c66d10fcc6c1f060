//! The memory of all models, which the server keeps: asked over the connection.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};

use hypura_engine::budget::SharedMemory;

use super::outgoing::Outgoing;
use crate::runner::message::FromRunner;

/// What tells the server how its model is.
pub(super) trait Alive: Send + Sync {
    /// A sign of life, with the state of the model.
    fn say_alive(&self);
}

/// Asks the server.
pub(super) struct ServerMemory {
    outgoing: Arc<Outgoing>,
    host: Weak<dyn Alive>,
    next_id: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::Sender<u64>>>,
}

impl ServerMemory {
    pub fn new(outgoing: Arc<Outgoing>, host: Weak<dyn Alive>) -> Self {
        Self { outgoing, host, next_id: AtomicU64::new(0), waiting: Mutex::default() }
    }

    fn ask(&self, question: impl FnOnce(u64) -> FromRunner) -> u64 {
        let (sender, answer) = mpsc::channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        self.outgoing.say(&question(id));
        // Nothing, where the server is gone.
        answer.recv().unwrap_or(0)
    }

    /// The server's answer.
    pub fn answered(&self, id: u64, bytes: u64) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let _ = waiting.map(|waiting| waiting.send(bytes));
    }

    /// Nobody answers any more.
    pub fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl fmt::Debug for ServerMemory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ServerMemory")
    }
}

impl SharedMemory for ServerMemory {
    fn free_bytes(&self) -> u64 {
        self.ask(|id| FromRunner::FreeBytes { id })
    }

    fn reserve(&self, wanted_bytes: u64) -> u64 {
        if wanted_bytes == 0 {
            return 0;
        }
        self.ask(|id| FromRunner::Reserve { id, bytes: wanted_bytes })
    }

    fn release(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        // In this order, so that what was made of the promise never counts as free in between.
        if let Some(host) = self.host.upgrade() {
            host.say_alive();
        }
        self.outgoing.say(&FromRunner::Release { bytes });
    }
}

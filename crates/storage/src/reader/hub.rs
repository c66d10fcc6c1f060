//! The hub between the owner of a reader and its worker threads: the schedule behind a lock, and
//! [`ThreadedReader`], the owner's side. What the workers do with their chunks is the business of `pread`.
//!
//! Invariants: nobody does I/O or waits for I/O while holding the lock; workers end only when nothing is at
//! the device; dropping the reader joins them.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Reader;
use super::chunk::Chunk;
use super::request::{Completion, ReadRequest, ReaderConfig, ReaderStats};
use super::schedule::Schedule;
use crate::ReadError;

/// State shared by the owner and the workers.
pub(super) struct Hub {
    state: Mutex<State>,
    /// The owner sleeps here until something is delivered.
    delivered: Condvar,
    /// Workers sleep here until there is work.
    work: Condvar,
    opened: Instant,
}

struct State {
    schedule: Schedule,
    closing: bool,
}

impl Hub {
    pub(super) fn new(config: &ReaderConfig) -> Arc<Hub> {
        let state = State { schedule: Schedule::new(config), closing: false };
        Arc::new(Hub {
            state: Mutex::new(state),
            delivered: Condvar::new(),
            work: Condvar::new(),
            opened: Instant::now(),
        })
    }

    /// The lock survives a panic of another holder: every change of the state is complete before anything can
    /// panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    /// For a worker: sleeps until there is a chunk to read; `None` when the reader closes. Each worker that
    /// finds more than it takes wakes the next, so that a lone request does not wake them all.
    pub(super) fn next_chunk(&self) -> Option<Chunk> {
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.schedule.next_chunk(self.now()) {
                if state.schedule.has_queued() {
                    self.work.notify_one();
                }
                return Some(chunk);
            }
            if state.closing {
                self.work.notify_one();
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a chunk back from a worker and wakes the owner if that answered a request.
    pub(super) fn finish(&self, chunk: Chunk, outcome: Result<(), ReadError>) {
        let mut state = self.lock();
        state.schedule.finish(chunk, outcome, self.now());
        if state.schedule.has_done() {
            self.delivered.notify_one();
        }
    }

    /// Wakes a worker for new work; busy workers look again before they sleep.
    fn wake_worker(&self) {
        self.work.notify_one();
    }
}

/// A reader whose I/O is done by worker threads; opened by [`open_pread`](super::open_pread).
pub struct ThreadedReader {
    name: &'static str,
    hub: Arc<Hub>,
    workers: Vec<JoinHandle<()>>,
}

impl ThreadedReader {
    pub(super) fn new(name: &'static str, hub: Arc<Hub>) -> ThreadedReader {
        ThreadedReader { name, hub, workers: Vec::new() }
    }

    pub(super) fn add_worker(&mut self, worker: JoinHandle<()>) {
        self.workers.push(worker);
    }
}

impl fmt::Debug for ThreadedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadedReader")
            .field("name", &self.name)
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

impl Reader for ThreadedReader {
    fn submit(&mut self, requests: Vec<ReadRequest>) {
        let mut state = self.hub.lock();
        for request in requests {
            state.schedule.submit(request);
        }
        let wake = state.schedule.has_queued();
        drop(state);
        if wake {
            self.hub.wake_worker();
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.hub.lock().schedule.deliver(out);
    }

    fn wait_for(&mut self, out: &mut Vec<Completion>, patience: Duration) {
        let nothing = |state: &mut State| !state.schedule.has_done() && state.schedule.in_flight() > 0;
        let waited = self.hub.delivered.wait_timeout_while(self.hub.lock(), patience, nothing);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.schedule.deliver(out);
    }

    fn in_flight(&self) -> usize {
        self.hub.lock().schedule.in_flight()
    }

    fn backlog_bytes(&self) -> usize {
        self.hub.lock().schedule.backlog_bytes()
    }

    fn cancel_queued(&mut self, tags: Option<&[u64]>) -> Vec<u64> {
        self.hub.lock().schedule.cancel_queued(tags)
    }

    fn promote(&mut self, tags: &[u64]) {
        self.hub.lock().schedule.promote(tags);
        // Promoted chunks may start although the room for prefetches is full.
        self.hub.wake_worker();
    }

    fn stats(&self) -> ReaderStats {
        self.hub.lock().schedule.stats(self.hub.now())
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

impl Drop for ThreadedReader {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.closing = true;
        state.schedule.abandon_queued();
        drop(state);
        self.hub.wake_worker();
        for worker in self.workers.drain(..) {
            // A worker that panicked has nothing at the device any more; its panic was reported by its
            // thread.
            let _ = worker.join();
        }
    }
}

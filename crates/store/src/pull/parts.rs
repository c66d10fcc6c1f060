//! The parts of a file that arrives, shared by the threads that fetch, hash and flush it.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::journal::Journal;
use super::{PullError, PullSettings};
use crate::web::HttpError;

/// Where a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    Taken,
    Done,
}

/// A file that arrives.
pub(super) struct Parts<'a> {
    pub file: &'a File,
    pub path: &'a Path,
    pub bytes: u64,
    pub settings: &'a PullSettings,
    /// Bytes that are there, those of parts that are not whole included.
    pub have: &'a AtomicU64,
    inner: Mutex<Inner>,
    changed: Condvar,
    stopped: AtomicBool,
    /// The whole pull is to end.
    all_stopped: &'a AtomicBool,
}

struct Inner {
    states: Vec<State>,
    journal: Journal,
    /// Parts in the journal.
    listed: usize,
    /// How many of them are on the disk.
    flushed: usize,
    unflushed_bytes: u64,
    failure: Option<Failure>,
}

/// Why a file did not arrive.
#[derive(Debug)]
pub(super) enum Failure {
    /// For good.
    Error(PullError),
    /// Its server has another file now, or none any more.
    Changed(Option<HttpError>),
    /// The server sends no parts: it must come in one piece.
    NoRanges,
}

impl<'a> Parts<'a> {
    pub fn new(
        file: &'a File,
        path: &'a Path,
        bytes: u64,
        settings: &'a PullSettings,
        have: &'a AtomicU64,
        all_stopped: &'a AtomicBool,
        (journal, done): (Journal, Vec<u64>),
    ) -> Self {
        let count = usize::try_from(bytes.div_ceil(settings.part_bytes)).unwrap_or(usize::MAX);
        let mut states = vec![State::Missing; count];
        let listed = done.len();
        for index in done {
            if let Some(state) = usize::try_from(index).ok().and_then(|index| states.get_mut(index)) {
                *state = State::Done;
            }
        }
        let inner = Inner { states, journal, listed, flushed: listed, unflushed_bytes: 0, failure: None };
        let parts = Self {
            file,
            path,
            bytes,
            settings,
            have,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
            all_stopped,
        };
        let there = (0..count).filter(|&index| parts.lock().states.get(index) == Some(&State::Done));
        parts.have.store(there.map(|index| parts.len_of(index)).sum(), Ordering::Relaxed);
        parts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len_of(&self, index: usize) -> u64 {
        self.range_of(index..index + 1).end - self.range_of(index..index + 1).start
    }

    /// The bytes of some parts.
    pub fn range_of(&self, parts: Range<usize>) -> Range<u64> {
        let at = |index: usize| (index as u64).saturating_mul(self.settings.part_bytes).min(self.bytes);
        at(parts.start)..at(parts.end)
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.all_stopped.load(Ordering::Relaxed)
    }

    /// Ends all threads of this file.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Whoever is about to wait holds the lock, and sees the flag or is woken.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Ends all threads of this file with a reason; the first one counts.
    pub fn fail(&self, failure: Failure) {
        let mut inner = self.lock();
        inner.failure.get_or_insert(failure);
        drop(inner);
        self.stop();
    }

    pub fn take_failure(&self) -> Option<Failure> {
        self.lock().failure.take()
    }

    /// Waits for `time`, or until the file is stopped.
    pub fn pause(&self, time: Duration) {
        let inner = self.lock();
        let waiting = |_: &mut Inner| !self.is_stopped();
        drop(self.changed.wait_timeout_while(inner, time, waiting));
    }

    /// The next parts to fetch: neighbours, as many as are asked for at once. `None`: all are taken.
    pub fn take(&self) -> Option<Range<usize>> {
        let mut inner = self.lock();
        if self.is_stopped() {
            return None;
        }
        let first = inner.states.iter().position(|state| *state == State::Missing)?;
        let most = self.settings.request_bytes / self.settings.part_bytes;
        // Towards the end less, so that connections end together.
        let left = inner.states.iter().filter(|state| **state == State::Missing).count();
        let share = left / (2 * self.settings.connections.max(1));
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(share).max(1);
        let missing = inner.states.iter().skip(first).take(most);
        let count = missing.take_while(|state| **state == State::Missing).count();
        let run = first..first + count;
        for state in inner.states.get_mut(run.clone()).unwrap_or_default() {
            *state = State::Taken;
        }
        Some(run)
    }

    /// All parts at once, from the first byte: for servers that send no ranges.
    pub fn take_all(&self) -> Range<usize> {
        let mut inner = self.lock();
        inner.states.fill(State::Taken);
        0..inner.states.len()
    }

    /// Part `index` is written. Waits where the disk is far behind.
    pub fn done(&self, index: usize) -> Result<(), PullError> {
        let len = self.len_of(index);
        let mut inner = self.lock();
        if let Some(state) = inner.states.get_mut(index) {
            *state = State::Done;
        }
        inner.journal.done(index as u64).map_err(PullError::io("write", self.path))?;
        inner.listed += 1;
        inner.unflushed_bytes += len;
        self.changed.notify_all();
        let most = self.settings.flush_bytes.saturating_mul(4);
        let behind = |inner: &mut Inner| inner.unflushed_bytes > most && !self.is_stopped();
        drop(self.changed.wait_while(inner, behind));
        Ok(())
    }

    /// Waits until part `index` is there; `false`: the file was stopped.
    pub fn wait_for(&self, index: usize) -> bool {
        let missing = |inner: &mut Inner| {
            inner.states.get(index).is_some_and(|state| *state != State::Done) && !self.is_stopped()
        };
        let inner = self.changed.wait_while(self.lock(), missing).unwrap_or_else(PoisonError::into_inner);
        inner.states.get(index).is_none_or(|state| *state == State::Done)
    }

    /// Parts of the file.
    pub fn count(&self) -> usize {
        self.lock().states.len()
    }

    /// Whether any part is there.
    pub fn has_done(&self) -> bool {
        self.lock().states.contains(&State::Done)
    }

    pub fn all_done(&self) -> bool {
        self.lock().states.iter().all(|state| *state == State::Done)
    }

    /// Waits until there is enough to flush, or all is there; `None`: there is nothing more to do. Gives the
    /// parts that a flush which begins now covers, and their bytes.
    pub fn wait_to_flush(&self) -> Option<(usize, u64)> {
        let idle = |inner: &mut Inner| {
            let whole = inner.states.iter().all(|state| *state == State::Done);
            inner.unflushed_bytes < self.settings.flush_bytes && !whole && !self.is_stopped()
        };
        let inner = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        (inner.flushed < inner.listed).then_some((inner.listed, inner.unflushed_bytes))
    }

    /// The first `count` parts that were done are on the disk.
    pub fn flushed(&self, count: usize, bytes: u64) -> Result<(), PullError> {
        let mut inner = self.lock();
        inner.flushed = count;
        inner.unflushed_bytes = inner.unflushed_bytes.saturating_sub(bytes);
        inner.journal.flushed(count).map_err(PullError::io("write", self.path))?;
        self.changed.notify_all();
        Ok(())
    }
}

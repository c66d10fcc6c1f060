//! Whether a model at work gets on: it says once a second how far it is, whatever the thread that computes
//! does.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hypura_engine::serve::RunnerStatus;

/// What was seen last.
struct Seen {
    moved: u64,
    since: Instant,
    limit: Duration,
}

/// Since when a model at work has not moved.
pub(super) struct Movement(Mutex<Seen>);

impl Movement {
    /// A model that moves at least so often while it works.
    pub fn new(limit: Duration) -> Self {
        Self(Mutex::new(Seen { moved: 0, since: Instant::now(), limit }))
    }

    /// Some of its work takes longer, and does not say meanwhile how far it is.
    pub fn allow(&self, limit: Duration) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.limit = seen.limit.max(limit);
    }

    /// It said how it is.
    pub fn note(&self, status: &RunnerStatus) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = status.active == 0 && status.queued == 0;
        if is_idle || status.moved != seen.moved {
            seen.moved = status.moved;
            seen.since = Instant::now();
        }
    }

    /// How long it has not moved, where that is too long.
    pub fn hangs_for(&self) -> Option<Duration> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let still = seen.since.elapsed();
        (still > seen.limit).then_some(still)
    }
}

//! Plans that were asked for lately.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

/// How long a plan is good for: the machine may be measured meanwhile.
const FRESH: Duration = Duration::from_secs(60);
/// Most plans that are kept.
const MOST: usize = 64;

/// Plans that were asked for lately. Each took a process: one at a time makes them.
pub struct Plans {
    kept: Mutex<VecDeque<(String, Instant, Bytes)>>,
    /// Whoever makes one has it.
    pub(super) turn: Semaphore,
}

impl Default for Plans {
    fn default() -> Self {
        Self { kept: Mutex::default(), turn: Semaphore::new(1) }
    }
}

impl Plans {
    pub(super) fn find(&self, key: &str) -> Option<Bytes> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, made, _)| made.elapsed() < FRESH);
        kept.iter().find(|(other, ..)| other == key).map(|(.., bytes)| bytes.clone())
    }

    pub(super) fn keep(&self, key: String, bytes: Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((key, Instant::now(), bytes));
        if kept.len() > MOST {
            kept.pop_front();
        }
    }
}

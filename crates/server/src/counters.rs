//! What the server counts itself, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the server counts itself.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that reached a model, or tried to.
    pub requests: AtomicU64,
    /// Those that are not answered yet.
    pub active: AtomicU64,
    /// Those that failed.
    pub failures: AtomicU64,
    /// Requests whose client disconnected.
    pub disconnects: AtomicU64,
    /// Answers that had a first token.
    pub first_tokens: AtomicU64,
    /// Time from their requests to it, in microseconds.
    pub first_token_micros: AtomicU64,
}

impl Counters {
    /// Remembers how long a first token took.
    pub fn first_token(&self, after: Duration) {
        self.first_tokens.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.first_token_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

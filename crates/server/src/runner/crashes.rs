//! Which files ended their runners: after the second time they are refused for a while.
//!
//! A file that has answered a request since the server started counts only where it ends its runner while it
//! is loaded: later a request is as likely at fault, and nobody's requests may have a model refused to
//! others.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Failure;

/// How many runners a file may end before it is refused.
const MOST: u32 = 2;

struct Record {
    count: u32,
    last: Instant,
    reason: String,
}

/// What files did, by their weights.
pub(super) struct Crashes {
    records: Mutex<HashMap<String, Record>>,
    /// Weights that have answered.
    proven: Mutex<HashSet<String>>,
    refused_for: Duration,
}

impl Crashes {
    pub fn new(refused_for: Duration) -> Self {
        Self { records: Mutex::default(), proven: Mutex::default(), refused_for }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proven(&self) -> MutexGuard<'_, HashSet<String>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runner ended by its file, or by a request once it was `loaded`.
    pub fn note(&self, weights: &str, reason: &str, loaded: bool) {
        if loaded && self.proven().contains(weights) {
            return;
        }
        let mut records = self.lock();
        let now = Instant::now();
        // What was long ago is forgotten.
        records.retain(|_, record| record.last.elapsed() < self.refused_for * 10);
        let fresh = || Record { count: 0, last: now, reason: String::new() };
        let record = records.entry(weights.to_owned()).or_insert_with(fresh);
        record.count += 1;
        record.last = now;
        reason.clone_into(&mut record.reason);
    }

    /// A runner of this file answered a request.
    pub fn forgive(&self, weights: &str) {
        self.lock().remove(weights);
        self.proven().insert(weights.to_owned());
    }

    /// Whether the file may be loaded.
    ///
    /// # Errors
    /// Not yet, and why.
    pub fn check(&self, model: &str, weights: &str) -> Result<(), Failure> {
        let mut records = self.lock();
        let Some(record) = records.get_mut(weights).filter(|record| record.count >= MOST) else {
            return Ok(());
        };
        let left = self.refused_for.saturating_sub(record.last.elapsed());
        if left.is_zero() {
            // One more attempt.
            record.count = MOST - 1;
            return Ok(());
        }
        let (reason, seconds) = (&record.reason, left.as_secs() + 1);
        let message = format!(
            "model '{model}' is not loaded again for the next {seconds} s: it ended its process twice ({reason})"
        );
        Err(Failure::internal(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_ended_two_runners_is_refused_for_a_while_and_with_the_reason() {
        let crashes = Crashes::new(Duration::from_secs(60));
        crashes.note("w", "GGML_ASSERT(a) failed", true);
        assert!(crashes.check("m", "w").is_ok(), "once may be chance");
        crashes.note("w", "GGML_ASSERT(b) failed", false);
        let failure = crashes.check("m", "w").unwrap_err();
        assert!(failure.message.contains("'m'") && failure.message.contains("GGML_ASSERT(b)"), "{failure}");
        assert!(crashes.check("m", "another").is_ok());
        crashes.forgive("w");
        assert!(crashes.check("m", "w").is_ok());
        (0..9).for_each(|_| crashes.note("w", "a request", true));
        assert!(crashes.check("m", "w").is_ok(), "requests do not have a model refused that works");
        (0..2).for_each(|_| crashes.note("w", "a load", false));
        assert!(crashes.check("m", "w").is_err());
    }

    #[test]
    fn after_the_while_it_gets_one_more_attempt() {
        let crashes = Crashes::new(Duration::ZERO);
        (0..2).for_each(|_| crashes.note("w", "x", false));
        assert!(crashes.check("m", "w").is_ok());
    }
}

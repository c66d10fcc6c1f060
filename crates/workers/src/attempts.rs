//! Who may try to connect: an address that failed a few times has to wait, and only so many may try at once.
//!
//! The code has too many bits to be guessed; this keeps a worker from working for those who try.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures of an address before it has to wait.
const MOST_FAILURES: u32 = 5;
/// How long.
const WAIT: Duration = Duration::from_secs(60);
/// Connections that are not proven yet.
const MOST_AT_ONCE: usize = 16;
/// Addresses that are remembered.
const MOST_ADDRESSES: usize = 4096;

#[derive(Debug, Default)]
struct Known {
    failures: HashMap<IpAddr, (u32, Instant)>,
    trying: usize,
}

/// What is known of those who tried.
#[derive(Clone, Debug, Default)]
pub struct Attempts(Arc<Mutex<Known>>);

/// One attempt.
#[derive(Debug)]
pub struct Attempt {
    attempts: Attempts,
    from: IpAddr,
}

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt from there; `None` where it has to wait.
    #[must_use]
    pub fn begin(&self, from: IpAddr) -> Option<Attempt> {
        let mut known = self.lock();
        known.failures.retain(|_, (_, last)| last.elapsed() < WAIT);
        let failed = known.failures.get(&from).map_or(0, |(count, _)| *count);
        if failed >= MOST_FAILURES || known.trying >= MOST_AT_ONCE {
            return None;
        }
        known.trying += 1;
        drop(known);
        Some(Attempt { attempts: self.clone(), from })
    }
}

impl Attempt {
    /// It did not prove anything.
    pub fn failed(&self) {
        let mut known = self.attempts.lock();
        if known.failures.len() < MOST_ADDRESSES || known.failures.contains_key(&self.from) {
            let entry = known.failures.entry(self.from).or_insert((0, Instant::now()));
            *entry = (entry.0 + 1, Instant::now());
        }
    }

    /// It did.
    pub fn succeeded(&self) {
        self.attempts.lock().failures.remove(&self.from);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.attempts.lock().trying -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_failed_often_waits_and_others_do_not() {
        let attempts = Attempts::default();
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..MOST_FAILURES {
            attempts.begin(bad).unwrap().failed();
        }
        assert!(attempts.begin(bad).is_none());
        attempts.begin(good).unwrap().failed();
        attempts.begin(good).unwrap().succeeded();
        assert!(attempts.begin(good).is_some());
        let trying: Vec<Attempt> = (0..MOST_AT_ONCE).filter_map(|_| attempts.begin(good)).collect();
        assert!(attempts.begin(good).is_none(), "{} at once", trying.len());
        drop(trying);
        assert!(attempts.begin(good).is_some());
    }
}

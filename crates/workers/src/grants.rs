//! A worker's memory, given out to sessions: what one has is nobody else's until it ends or gives some back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Less than this is no use to anybody.
const LEAST_BYTES: u64 = 64 << 20;

/// What of the memory is whose.
#[derive(Clone, Debug)]
pub struct Grants {
    total_bytes: u64,
    given: Arc<Mutex<Given>>,
}

#[derive(Debug, Default)]
struct Given {
    next: u64,
    by_session: BTreeMap<u64, (String, u64)>,
}

/// One session's memory, which is free again once this is dropped.
#[derive(Debug)]
pub struct Grant {
    grants: Grants,
    id: u64,
}

impl Grants {
    /// So much memory, all of it free.
    #[must_use]
    pub fn of(total_bytes: u64) -> Self {
        Self { total_bytes, given: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in all.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes that nobody has.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_beside(&self.lock())
    }

    fn free_beside(&self, given: &Given) -> u64 {
        given.by_session.values().fold(self.total_bytes, |free, (_, bytes)| free.saturating_sub(*bytes))
    }

    /// Gives all that is free to a session of a machine of that name.
    ///
    /// # Errors
    /// Who has it.
    pub fn take(&self, name: &str) -> Result<Grant, String> {
        let mut given = self.lock();
        let free = self.free_beside(&given);
        if free < LEAST_BYTES {
            let holders: Vec<&str> = given.by_session.values().map(|(name, _)| name.as_str()).collect();
            return Err(format!("all of its memory is in use by {}", holders.join(", ")));
        }
        let id = given.next;
        given.next += 1;
        given.by_session.insert(id, (name.to_owned(), free));
        drop(given);
        Ok(Grant { grants: self.clone(), id })
    }
}

impl Grants {
    /// The same, as soon as there is some: a session that ends may take a moment to give its memory back, and
    /// whoever had it may be the one who asks.
    ///
    /// # Errors
    /// Who still has it after that time.
    pub fn take_within(&self, name: &str, patience: Duration) -> Result<Grant, String> {
        let start = Instant::now();
        loop {
            match self.take(name) {
                Err(_) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(20)),
                end => return end,
            }
        }
    }
}

impl Grant {
    /// Bytes that the session may use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.grants.lock().by_session.get(&self.id).map_or(0, |(_, bytes)| *bytes)
    }

    /// Gives back all but so many bytes.
    pub fn keep(&self, most_bytes: u64) {
        if let Some((_, bytes)) = self.grants.lock().by_session.get_mut(&self.id) {
            *bytes = (*bytes).min(most_bytes);
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.grants.lock().by_session.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_one_sessions_until_it_gives_some_back() {
        let grants = Grants::of(8 << 30);
        let first = grants.take("a").unwrap();
        assert_eq!((first.bytes(), grants.free_bytes()), (8 << 30, 0));
        assert!(grants.take("b").unwrap_err().contains("in use by a"));
        first.keep(3 << 30);
        first.keep(5 << 30);
        assert_eq!(first.bytes(), 3 << 30, "what was given back is not taken again");
        let second = grants.take("b").unwrap();
        assert_eq!(second.bytes(), 5 << 30);
        drop(first);
        assert_eq!(grants.free_bytes(), 3 << 30);
    }

    #[test]
    fn memory_of_a_session_that_is_ending_is_waited_for() {
        let grants = Grants::of(8 << 30);
        let ending = grants.take("a").unwrap();
        let waits = std::thread::scope(|scope| {
            let waits = scope.spawn(|| grants.take_within("a", Duration::from_secs(20)));
            std::thread::sleep(Duration::from_millis(50));
            drop(ending);
            waits.join().unwrap()
        });
        assert_eq!(waits.unwrap().bytes(), 8 << 30);
        let _holds = grants.take("b").unwrap();
        assert!(grants.take_within("a", Duration::from_millis(30)).unwrap_err().contains("in use by b"));
    }
}

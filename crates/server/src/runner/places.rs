//! How much of one kind a runner is asked to do at a time. Whoever waits for a place waits here, before any
//! deadline runs: a runner is not late because many ask.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often whoever waits looks whether there is a runner any more.
const LOOK: Duration = Duration::from_millis(100);

/// Places for one kind of work.
pub(super) struct Places {
    most: usize,
    taken: Mutex<usize>,
    changed: Condvar,
}

/// A place; dropping it gives it back.
pub(super) struct Place(Arc<Places>);

impl Places {
    /// So many.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::new(0), changed: Condvar::new() })
    }

    /// Waits for a place; `None` once nobody needs one, because the runner has ended.
    pub fn take(self: &Arc<Self>, ended: impl Fn() -> bool) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= self.most {
            if ended() {
                return None;
            }
            taken = self.changed.wait_timeout(taken, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += 1;
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_than_there_are_places_work_at_a_time_and_all_do() {
        let places = Places::new(2);
        let (working, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _place = places.take(|| false).unwrap();
                    most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    working.fetch_sub(1, Ordering::SeqCst);
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!((most.into_inner(), done.into_inner()), (2, 8));
        let _held = [places.take(|| false), places.take(|| false)];
        assert!(places.take(|| true).is_none(), "nobody waits for a runner that is gone");
    }
}

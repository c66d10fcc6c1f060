//! The first touch of memory: what the system takes to give a page.
//!
//! On a machine of its own that is the price of zeroing. A virtual machine may have to ask its host for pages that it gave
//! back when they were free, and then the same allocation takes twenty times as long, or not, by what ran before. A benchmark
//! therefore has memory at hand before each of its arms ([`have_at_hand`]).

use hypura_storage::{Arena, HugePages};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How much faster a part is that the system had at hand.
const READY: f64 = 4.0;
/// Bytes between two touches: the smallest page there is.
const STEP: usize = 4096;
/// Bytes between two looks at the clock.
const PART: usize = 8 << 20;

/// What touching fresh memory was like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    /// The rate of the later half.
    pub bytes_per_s: f64,
    /// Bytes at the beginning that came much faster: the system gives what was just freed first.
    pub ready_bytes: u64,
    /// Bytes touched.
    pub touched_bytes: u64,
}

/// Touches up to `bytes` of fresh memory as slots are made of, page after page, for about as long as `most`. The memory is
/// given back.
pub(super) fn first_touch(bytes: u64, most: Duration) -> Option<Touched> {
    let times = touch(bytes.max(PART as u64), Some(most))?;
    let (parts, half) = (times.len() - 1, (times.len() - 1) / 2);
    let took = times.last()?.saturating_sub(*times.get(half)?).as_secs_f64();
    let usual_s = took / (parts - half).max(1) as f64;
    let fast = |pair: &[Duration]| (pair[1] - pair[0]).as_secs_f64() * READY < usual_s;
    let ready = times.windows(2).take_while(|pair| fast(pair)).count() * PART;
    (took > 0.0).then(|| Touched {
        bytes_per_s: PART as f64 / usual_s,
        ready_bytes: ready as u64,
        touched_bytes: (parts * PART) as u64,
    })
}

/// Has the system hold so many bytes of free memory that the next touch finds at once: touches and gives back. Returns how
/// long that took; `None` when there is not so much.
#[must_use]
pub fn have_at_hand(bytes: u64) -> Option<Duration> {
    touch(bytes, None)?.last().copied()
}

/// Touches fresh memory; the time after each part, from 0 on.
fn touch(bytes: u64, most: Option<Duration>) -> Option<Vec<Duration>> {
    let arena = Arena::new(usize::try_from(bytes).ok()?, HugePages::Try).ok()?;
    let start = Instant::now();
    let mut times = vec![Duration::ZERO];
    for part in arena.cells().chunks(PART) {
        part.iter().step_by(STEP).for_each(|cell| cell.store(1, Ordering::Relaxed));
        times.push(start.elapsed());
        if most.is_some_and(|most| start.elapsed() > most) {
            break;
        }
    }
    Some(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_tells_how_fast_and_how_much() {
        let found = first_touch(64 << 20, Duration::from_secs(60)).unwrap();
        assert_eq!(found.touched_bytes, 64 << 20);
        assert!(found.ready_bytes <= found.touched_bytes && found.bytes_per_s.is_finite());
        assert!(found.bytes_per_s > 0.0);
        let stopped = first_touch(1 << 30, Duration::ZERO).unwrap();
        assert_eq!(stopped.touched_bytes, PART as u64, "the time is up after the first part");
    }

    #[test]
    fn more_than_there_is_cannot_be_at_hand() {
        assert!(have_at_hand(20 << 20).is_some());
        assert!(have_at_hand(1 << 60).is_none());
    }
}

//! Backing an arena with pages in advance: a thread that works while nobody computes.
//!
//! The first touch of a page can cost more than the read into it: 0.1 ms for 2 MiB where the kernel clears
//! them, 5 ms in a virtual machine whose host has to find them. Threads that compute wait for each other at
//! barriers, so whoever takes a core from one of them slows all. Therefore pages are touched between requests
//! and while the disk is waited for ([`Phase`]).
//!
//! Invariant: no piece is begun while somebody computes; at most the end of one is left when computing goes
//! on, and that is counted ([`Population::overlap`]).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::Arena;
use crate::arena::HUGE_PAGE;
use crate::platform;

/// Between two tokens nobody computes for a moment, either: idle is who is idle at two looks in a row.
const LOOK: Duration = Duration::from_millis(20);
/// Forty milliseconds in a slow virtual machine; all of a small model.
const FIRST_PIECES: usize = 8;
/// No memory is cleared so fast: somebody touched that piece before.
const TOUCHED_BEFORE: Duration = Duration::from_micros(20);

/// What those do who would be disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing.
    Idle,
    /// They compute.
    Computing,
    /// They wait for the disk, for longer than a piece takes.
    Waiting,
}

/// A range of the arena that is touched from its start on.
#[derive(Debug)]
struct Region {
    range: Range<usize>,
    touched: AtomicUsize,
}

impl Region {
    fn touched(&self) -> usize {
        self.touched.load(Ordering::Relaxed)
    }

    fn share(&self) -> f64 {
        self.touched() as f64 / self.range.len().max(1) as f64
    }
}

/// The pages of an arena, and who touches them when.
#[derive(Debug)]
pub struct Population {
    arena: Weak<Arena>,
    regions: Vec<Region>,
    phase: AtomicU8,
    /// How often computing began.
    computed: AtomicU32,
    working: AtomicBool,
    piece_ns: AtomicU64,
    overlap_ns: AtomicU64,
    asleep: Mutex<()>,
    wake: Condvar,
}

impl Population {
    /// Of these ranges of an arena, which are touched evenly, each from its start on. Nothing is done yet.
    #[must_use]
    pub fn new(arena: &Arc<Arena>, regions: Vec<Range<usize>>) -> Arc<Self> {
        let region = |range| Region { range, touched: AtomicUsize::new(0) };
        Arc::new(Self {
            arena: Arc::downgrade(arena),
            regions: regions.into_iter().map(region).collect(),
            phase: AtomicU8::new(Phase::Idle as u8),
            computed: AtomicU32::new(0),
            working: AtomicBool::new(false),
            piece_ns: AtomicU64::new(0),
            overlap_ns: AtomicU64::new(0),
            asleep: Mutex::new(()),
            wake: Condvar::new(),
        })
    }

    /// Starts the thread, which ends with its work, with the arena, or with the last owner of this. Some
    /// pieces are touched before, so that it is known what one takes.
    pub fn start(self: &Arc<Self>) {
        for _ in 0..FIRST_PIECES {
            if !self.next_piece().is_some_and(|(region, piece)| self.touch(region, piece)) {
                return;
            }
        }
        let this = Arc::downgrade(self);
        let work = move || {
            platform::yield_to_others();
            let mut idle_since = Some(0);
            while this.upgrade().is_some_and(|this| this.go_on(&mut idle_since)) {}
        };
        self.working.store(true, Ordering::Relaxed);
        if std::thread::Builder::new().name("hypura-pages".to_owned()).spawn(work).is_err() {
            // Pages come when they are written to.
            self.stop();
        }
    }

    /// Touches everything now, in this thread.
    pub fn finish(&self) {
        while let Some((region, piece)) = self.next_piece() {
            if !self.touch(region, piece) {
                return;
            }
        }
    }

    /// No piece is begun any more. What is given back to the system from now on stays there.
    pub fn stop(&self) {
        self.working.store(false, Ordering::Relaxed);
    }

    /// Whether there is still something to touch, and a thread for it: what is timed meanwhile contains first
    /// touches.
    pub fn is_working(&self) -> bool {
        self.working.load(Ordering::Relaxed)
    }

    /// Says what those do who would be disturbed. Costs next to nothing.
    pub fn set_phase(&self, phase: Phase) {
        if self.phase.swap(phase as u8, Ordering::Relaxed) == Phase::Idle as u8 && phase != Phase::Idle {
            self.computed.fetch_add(1, Ordering::Relaxed);
        }
        if phase == Phase::Waiting {
            self.wake.notify_one();
        }
    }

    /// How long a piece takes of late: whoever waits for less has no time for one. At least a millisecond,
    /// which is what waking the thread is worth.
    pub fn piece_time(&self) -> Duration {
        Duration::from_nanos(self.piece_ns.load(Ordering::Relaxed)).max(Duration::from_millis(1))
    }

    /// Bytes of a region that were touched, from its start on; all of them when the work is over.
    pub fn touched_bytes(&self, region: usize) -> usize {
        let Some(region) = self.regions.get(region) else { return 0 };
        if self.is_working() { region.touched() } else { region.range.len() }
    }

    /// Bytes a second at which pages are touched of late; `None` before the first one.
    pub fn bytes_per_s(&self) -> Option<f64> {
        let ns = self.piece_ns.load(Ordering::Relaxed);
        (ns > 0).then(|| HUGE_PAGE as f64 / (ns as f64 * 1e-9))
    }

    /// How long pieces took that ended while somebody computed.
    pub fn overlap(&self) -> Duration {
        Duration::from_nanos(self.overlap_ns.load(Ordering::Relaxed))
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    /// A piece where it may be, otherwise some waiting. False when there is nothing left to do.
    fn go_on(&self, idle_since: &mut Option<u32>) -> bool {
        if !self.is_working() {
            return false;
        }
        let computed = self.computed.load(Ordering::Relaxed);
        let is_idle = self.phase() == Phase::Idle as u8;
        if self.phase() == Phase::Waiting as u8 || (is_idle && *idle_since == Some(computed)) {
            let more = self.next_piece().is_some_and(|(region, piece)| self.touch(region, piece));
            if !more {
                self.stop();
            }
            return more;
        }
        *idle_since = is_idle.then_some(computed);
        let asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.wake.wait_timeout(asleep, LOOK));
        true
    }

    /// The next piece of the region of which least was touched: at most a huge page, of which the last one
    /// touched may have given a part already.
    fn next_piece(&self) -> Option<(&Region, Range<usize>)> {
        let left = self.regions.iter().filter(|region| region.touched() < region.range.len());
        let region = left.min_by(|a, b| a.share().total_cmp(&b.share()))?;
        let start = region.range.start + region.touched();
        let end = (start / HUGE_PAGE + 1) * HUGE_PAGE;
        Some((region, start..end.min(region.range.end)))
    }

    fn touch(&self, region: &Region, piece: Range<usize>) -> bool {
        let Some(arena) = self.arena.upgrade() else { return false };
        let start = Instant::now();
        if !arena.populate_range(piece.clone()) {
            return false;
        }
        let took = start.elapsed();
        if piece.len() == HUGE_PAGE && took > TOUCHED_BEFORE {
            self.note_piece(took);
        }
        if self.phase() == Phase::Computing as u8 {
            self.overlap_ns.fetch_add(nanos(took), Ordering::Relaxed);
        }
        region.touched.store(piece.end - region.range.start, Ordering::Relaxed);
        true
    }

    fn note_piece(&self, took: Duration) {
        let (before, took) = (self.piece_ns.load(Ordering::Relaxed), nanos(took));
        let mean = if before == 0 { took } else { before / 4 * 3 + took / 4 };
        self.piece_ns.store(mean, Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::HugePages;

    const PIECES: usize = 64;

    fn whole(arena: &Arena) -> Vec<Range<usize>> {
        std::iter::once(0..arena.len()).collect()
    }

    fn arena() -> Arc<Arena> {
        Arena::new(PIECES * HUGE_PAGE, HugePages::Try).unwrap()
    }

    fn until(what: &str, mut reached: impl FnMut() -> bool) {
        let start = Instant::now();
        while !reached() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn pages_are_touched_between_requests_without_changing_a_byte() {
        let arena = arena();
        arena.copy_in(5 * HUGE_PAGE, &[7; 100]);
        let population = Population::new(&arena, whole(&arena));
        population.start();
        arena.copy_in(60 * HUGE_PAGE, &[8; 100]);
        let mut out = [0; 101];
        arena.copy_out(5 * HUGE_PAGE, &mut out);
        assert_eq!((out[99], out[100]), (7, 0));
        until("it never ends", || !population.is_working());
        arena.copy_out(60 * HUGE_PAGE, &mut out);
        assert_eq!((out[99], out[100]), (8, 0));
        assert_eq!((population.touched_bytes(0), population.overlap()), (arena.len(), Duration::ZERO));
        assert!(population.bytes_per_s().is_some());
    }

    #[test]
    fn no_page_is_touched_while_somebody_computes() {
        let arena = arena();
        let population = Population::new(&arena, whole(&arena));
        population.set_phase(Phase::Computing);
        population.start();
        let first = population.touched_bytes(0);
        assert_eq!(first, FIRST_PIECES * HUGE_PAGE, "what tells how long a piece takes");
        std::thread::sleep(4 * LOOK);
        assert_eq!(population.touched_bytes(0), first);
        // Between two tokens nobody computes either.
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let idle = Instant::now();
            population.set_phase(Phase::Idle);
            std::thread::sleep(Duration::from_millis(1));
            population.set_phase(Phase::Computing);
            longest = longest.max(idle.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
        // Unless others kept this thread from saying so.
        assert!(population.touched_bytes(0) == first || longest >= LOOK, "{longest:?}");
        let first = population.touched_bytes(0);
        population.set_phase(Phase::Waiting);
        until("a wait is not used", || population.touched_bytes(0) > first);
        population.set_phase(Phase::Computing);
        // The piece that was begun may end.
        std::thread::sleep(Duration::from_millis(50));
        let touched = population.touched_bytes(0);
        std::thread::sleep(4 * LOOK);
        assert_eq!(population.touched_bytes(0), touched);
        population.set_phase(Phase::Idle);
        until("it never ends", || !population.is_working());
    }

    #[test]
    fn regions_grow_evenly_and_end_with_their_owners() {
        let arena = arena();
        let regions = vec![0..16 * HUGE_PAGE + 4096, 16 * HUGE_PAGE + 4096..arena.len()];
        let population = Population::new(&arena, regions);
        for _ in 0..32 {
            let (region, piece) = population.next_piece().unwrap();
            assert!(population.touch(region, piece));
        }
        let share = |at: usize| population.regions[at].share();
        assert!(
            (0.4..0.6).contains(&share(0)) && (0.4..0.6).contains(&share(1)),
            "{} {}",
            share(0),
            share(1)
        );
        population.finish();
        assert!(population.next_piece().is_none());
        population.start();
        let behind = Arc::downgrade(&population);
        drop(population);
        until("it outlives its owner", || behind.strong_count() == 0);
    }
}

//! What threads and cores did while steps were computed: one window after the other, each with one number of
//! threads for each kind of step.

use hypura_core::threads::{Window, Work};
use hypura_storage::threads::{WatchedThreads, idle_time};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// A window is at least so long: several time slices of whoever else is there.
const WINDOW: Duration = Duration::from_millis(50);
/// Steps further apart than this are not of one window.
const GAP: Duration = Duration::from_millis(20);
/// The same where others compute between two steps: they may read from a disk meanwhile.
const LONG_GAP: Duration = Duration::from_secs(2);
/// Idle time is counted in steps of 10 ms, and asking for it takes a tenth of one.
const IDLE_PERIOD: Duration = Duration::from_millis(150);

/// A window that has ended.
pub(super) struct Measured {
    pub end: Duration,
    pub length: Duration,
    pub waited: Duration,
    pub idle_cores: Option<f64>,
    pub work: Vec<Work>,
}

impl Measured {
    /// What a policy learns from.
    pub fn window(&self) -> Window<'_> {
        let Self { end, length, waited, idle_cores, ref work } = *self;
        Window { end, length, waited, idle_cores, work }
    }
}

/// A window that has begun.
struct Open {
    start: Instant,
    end: Instant,
    waited_before: Duration,
    work: Vec<Work>,
}

/// Measures steps.
pub(super) struct Meter {
    /// Name of the threads that compute beside the one that calls.
    name: String,
    epoch: Instant,
    watched: Option<(ThreadId, WatchedThreads)>,
    find: bool,
    open: Option<Open>,
    idle: Option<(Instant, Duration)>,
    /// Whether somebody else computes between two steps: then windows go on over long gaps, and are as long
    /// as the steps in them.
    takes_turns: bool,
}

impl Meter {
    /// `None` where waiting cannot be measured.
    pub fn new(name: &str) -> Option<Self> {
        WatchedThreads::named(name)?;
        Some(Self {
            name: name.to_owned(),
            epoch: Instant::now(),
            watched: None,
            find: false,
            open: None,
            idle: None,
            takes_turns: false,
        })
    }

    /// For steps between which somebody else computes.
    pub fn of_turns(name: &str) -> Option<Self> {
        Some(Self { takes_turns: true, ..Self::new(name)? })
    }

    /// There may be threads that there were not before: they are looked for when the next window begins.
    pub fn find_threads(&mut self) {
        self.find = true;
    }

    /// A step begins.
    pub fn begin_step(&mut self) {
        let now = Instant::now();
        let gap = if self.takes_turns { LONG_GAP } else { GAP };
        if self.open.as_ref().is_some_and(|open| now - open.end > gap) {
            self.open = None;
        }
        if self.open.is_none() {
            if std::mem::take(&mut self.find) {
                self.watched = None;
            }
            self.open = self.waited().map(|waited_before| Open {
                start: now,
                end: now,
                waited_before,
                work: Vec::new(),
            });
        }
    }

    /// A step of so many tokens ended, and was computed for so long. `count_idle`: idle cores matter.
    pub fn end_step(&mut self, tokens: u32, compute: Duration, count_idle: bool) -> Option<Measured> {
        let open = self.open.as_mut()?;
        open.end = Instant::now();
        match open.work.iter_mut().find(|work| work.tokens == tokens) {
            Some(work) => (work.steps, work.compute) = (work.steps + 1, work.compute + compute),
            None => open.work.push(Work { tokens, steps: 1, compute }),
        }
        let (length, end) = (open.end - open.start, open.end);
        let computed: Duration = open.work.iter().map(|work| work.compute).sum();
        if (if self.takes_turns { computed } else { length }) < WINDOW {
            return None;
        }
        let waited = self.waited()?;
        let Open { start, waited_before, work, .. } = self.open.take()?;
        Some(Measured {
            end: end - self.epoch,
            length,
            waited: waited.saturating_sub(waited_before),
            idle_cores: if count_idle { self.idle_cores(start, end) } else { None },
            work,
        })
    }

    /// A step failed: it says nothing.
    pub fn drop_step(&mut self) {
        self.open = None;
    }

    /// How long the threads have waited for a core.
    fn waited(&mut self) -> Option<Duration> {
        let caller = thread::current().id();
        if self.watched.as_ref().is_none_or(|(of, _)| *of != caller) {
            self.watched = Some((caller, WatchedThreads::named(&self.name)?));
        }
        self.watched.as_ref().map(|(_, threads)| threads.waited())
    }

    /// Cores that had nothing to do since this was asked last, if that is long enough ago, and not long
    /// before the window began.
    fn idle_cores(&mut self, start: Instant, now: Instant) -> Option<f64> {
        let before = self.idle;
        if before.is_some_and(|(at, _)| now - at < IDLE_PERIOD) {
            return None;
        }
        let idle = idle_time()?;
        self.idle = Some((now, idle));
        let (at, was) = before.filter(|(at, _)| start.duration_since(*at) < 4 * IDLE_PERIOD)?;
        Some(idle.saturating_sub(was).as_secs_f64() / (now - at).as_secs_f64())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn steps_make_a_window_once_there_are_enough_of_them() {
        let mut meter = Meter::new("no-such-threads").unwrap();
        let mut step = |tokens, ms| {
            meter.begin_step();
            thread::sleep(Duration::from_millis(ms));
            meter.end_step(tokens, Duration::from_millis(ms), true)
        };
        assert!(step(1, 5).is_none() && step(1, 5).is_none() && step(3, 5).is_none());
        let window = step(1, 40).unwrap();
        let of = |tokens| window.work.iter().find(|work| work.tokens == tokens).unwrap();
        assert_eq!((of(1).steps, of(1).compute), (3, Duration::from_millis(50)));
        assert_eq!(of(3).steps, 1);
        assert!(window.length >= WINDOW && window.end >= window.length);
        assert!(step(1, 60).is_some(), "one long step is enough");
    }

    #[test]
    fn steps_that_take_turns_with_others_make_a_window_of_their_own_time() {
        let mut meter = Meter::of_turns("no-such-threads").unwrap();
        for _ in 0..2 {
            meter.begin_step();
            assert!(meter.end_step(1, Duration::from_millis(20), false).is_none());
            thread::sleep(WINDOW + GAP);
        }
        meter.begin_step();
        let window = meter.end_step(1, Duration::from_millis(20), false).unwrap();
        assert_eq!((window.work[0].steps, window.work[0].compute), (3, Duration::from_millis(60)));
    }

    #[test]
    fn a_pause_is_in_no_window() {
        let mut meter = Meter::new("no-such-threads").unwrap();
        meter.begin_step();
        assert!(meter.end_step(1, Duration::ZERO, false).is_none());
        thread::sleep(WINDOW + GAP);
        meter.begin_step();
        assert!(meter.end_step(1, Duration::ZERO, false).is_none());
        meter.begin_step();
        meter.drop_step();
        thread::sleep(WINDOW);
        assert!(meter.end_step(1, Duration::ZERO, false).is_none(), "a step that failed");
    }
}

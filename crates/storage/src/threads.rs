//! How long threads of this process waited for a core, and how many cores have nothing to do.
//!
//! Linux keeps both: `/proc/self/task/ID/schedstat` has the time that a thread could have run and did not,
//! `/proc/stat` the time that each core was idle. Elsewhere nothing is known, and that is said.

use std::time::{Duration, Instant};

use crate::platform;

/// Threads whose waiting is watched.
#[derive(Debug, Default)]
pub struct WatchedThreads(platform::RunDelays);

impl WatchedThreads {
    /// All threads of this process with a name, and the calling one; `None` where waiting is not counted.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        platform::RunDelays::open(name).map(Self)
    }

    /// How long they have waited for a core since each of them began, added up. Threads that ended are not in
    /// it any more.
    pub fn waited(&self) -> Duration {
        self.0.total()
    }
}

/// Runs `work`; threads that it starts and that nobody names have this name, of at most 15 bytes.
pub fn with_thread_name<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let before = platform::thread_name();
    platform::set_thread_name(name);
    let result = work();
    if let Some(before) = before {
        platform::set_thread_name(&before);
    }
    result
}

/// What cores did until some moment.
#[derive(Clone, Copy, Debug)]
pub struct CoreTimes {
    at: Instant,
    idle: Duration,
    own: Duration,
}

impl CoreTimes {
    /// Until now; `None` where the system does not count.
    #[must_use]
    pub fn now() -> Option<Self> {
        Some(Self { at: Instant::now(), idle: idle_time()?, own: platform::processor_time()? })
    }

    /// How many cores this process could have had since then, on average: those that were idle, and those
    /// that it used. `None` where that is not known, and of less than a quarter of a second, which is counted
    /// too coarsely: on a quiet machine too, a look of a tenth of a second finds a core taken now and then.
    #[must_use]
    pub fn cores_to_be_had(&self) -> Option<f64> {
        const LEAST: Duration = Duration::from_millis(250);
        let now = Self::now()?;
        let time = now.at - self.at;
        let had = now.idle.saturating_sub(self.idle) + now.own.saturating_sub(self.own);
        (time >= LEAST).then(|| had.as_secs_f64() / time.as_secs_f64())
    }
}

/// Time that the cores which this process may use had nothing to do, added up, since the machine started, in
/// steps of 10 ms. `None` where that is not known.
#[must_use]
pub fn idle_time() -> Option<Duration> {
    platform::idle_time()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn threads_that_share_cores_wait() {
        // Twice as many as there are cores: each waits for half of the time.
        let cores = std::thread::available_parallelism().unwrap().get();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            with_thread_name("crowd-of-tests", || {
                for _ in 0..2 * cores {
                    // Named by nobody: `std` passes no name on.
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            std::hint::spin_loop();
                        }
                    });
                }
            });
            let watched = WatchedThreads::named("crowd-of-tests").unwrap();
            let (before, start) = (watched.waited(), Instant::now());
            std::thread::sleep(Duration::from_millis(200));
            let (waited, wall) = (watched.waited() - before, start.elapsed());
            stop.store(true, Ordering::Relaxed);
            assert!(waited > wall / 2, "{waited:?} in {wall:?}");
        });
    }

    #[test]
    fn a_thread_that_sleeps_does_not_wait() {
        let watched = WatchedThreads::named("nobody-has-this").unwrap();
        let before = watched.waited();
        std::thread::sleep(Duration::from_millis(50));
        assert!(watched.waited() - before < Duration::from_millis(40));
    }

    #[test]
    fn the_name_of_the_calling_thread_comes_back() {
        let before = platform::thread_name();
        let within = with_thread_name("for-a-moment", platform::thread_name);
        assert_eq!((within.as_deref(), platform::thread_name()), (Some("for-a-moment"), before));
    }

    #[test]
    fn what_this_process_uses_is_to_be_had() {
        let before = CoreTimes::now().unwrap();
        assert_eq!(before.cores_to_be_had(), None, "too early to say");
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        // However busy the machine is, this thread had a part of a core.
        let cores = before.cores_to_be_had().unwrap();
        let all = std::thread::available_parallelism().unwrap().get() as f64;
        assert!(0.05 < cores && cores < all + 0.5, "{cores} of {all}");
    }

    #[test]
    fn idle_time_only_grows() {
        let before = idle_time().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert!(idle_time().unwrap() >= before);
    }
}

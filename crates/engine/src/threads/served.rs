//! The threads of graphs that another machine asks for: fewer while other programs use the cores, as for a
//! model of this machine.
//!
//! Each graph is a part of a step that goes on elsewhere, so idle cores say nothing: they are idle most of
//! the time. More threads are tried now and then instead.

use hypura_core::threads::ThreadPolicy;
use hypura_ggml_rpc::ChooseThreads;
use hypura_storage::threads::CoreTimes;
use std::time::Duration;

use super::meter::Meter;

/// Chooses the threads of each graph.
pub(crate) struct ServedThreads {
    most: u32,
    /// What is measured; `None`: the number is fixed.
    meter: Option<Meter>,
    /// From the first graph on.
    policy: Option<ThreadPolicy>,
    /// What the cores had done when this was made.
    before: Option<CoreTimes>,
    /// Threads of the last graph.
    last: u32,
    /// Threads may have begun or ended with this graph: it says nothing about them.
    is_first: bool,
}

impl ServedThreads {
    /// `most` threads; with the name that the calling thread and they have, fewer where that is faster.
    pub fn new(most: u32, adapt: Option<&str>) -> Self {
        let meter = adapt.filter(|_| most > 1).and_then(Meter::of_turns);
        Self { most, meter, policy: None, before: CoreTimes::now(), last: most, is_first: true }
    }
}

impl ChooseThreads for ServedThreads {
    fn begin(&mut self, tokens: u32) -> u32 {
        let Some(meter) = &mut self.meter else { return self.most };
        let (most, before) = (self.most, self.before);
        let policy = self.policy.get_or_insert_with(|| {
            ThreadPolicy::new(most, before.and_then(|before| before.cores_to_be_had()))
        });
        let threads = policy.threads(tokens);
        self.is_first |= threads != self.last;
        self.last = threads;
        meter.begin_step();
        threads
    }

    fn end(&mut self, tokens: u32, took: Duration) {
        let Some((meter, policy)) = self.meter.as_mut().zip(self.policy.as_mut()) else { return };
        if std::mem::take(&mut self.is_first) {
            meter.drop_step();
            meter.find_threads();
            return;
        }
        if let Some(measured) = meter.end_step(tokens, took, false) {
            policy.observe(&measured.window());
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use hypura_storage::threads::with_thread_name;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    #[test]
    fn a_fixed_number_stays() {
        let mut threads = ServedThreads::new(3, None);
        for _ in 0..20 {
            assert_eq!(threads.begin(1), 3);
            threads.end(1, Duration::from_millis(100));
        }
    }

    #[test]
    fn threads_that_wait_for_cores_become_fewer() {
        const NAME: &str = "served-crowd";
        let cores = u32::try_from(thread_count()).unwrap();
        let (most, stop) = (2 * cores, AtomicBool::new(false));
        let fewest = std::thread::scope(|scope| {
            with_thread_name(NAME, || {
                for _ in 1..most {
                    // Nobody names them, so they have the name of whoever starts them.
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            std::hint::spin_loop();
                        }
                    });
                }
                let mut threads = ServedThreads::new(most, Some(NAME));
                let (start, mut fewest) = (Instant::now(), most);
                while fewest == most && start.elapsed() < Duration::from_secs(20) {
                    let chosen = threads.begin(1);
                    fewest = fewest.min(chosen);
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(10) {
                        std::hint::spin_loop();
                    }
                    threads.end(1, began.elapsed());
                }
                stop.store(true, Ordering::Relaxed);
                fewest
            })
        });
        assert!(fewest < most, "{most} threads compute on {cores} cores");
    }

    fn thread_count() -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }
}

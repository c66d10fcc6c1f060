//! Times kernels beside whatever else runs: samples in which a computing thread waited for a core do not
//! count.

use hypura_ggml::LoadError;
use hypura_ggml::measure::{MeasureOptions, Measured, measure_beside, overhead};
use hypura_storage::threads::{WatchedThreads, with_thread_name};
use std::time::Duration;

/// Name of the threads that are started meanwhile, unlike any other's.
const THREADS: &str = "hypura-measure";

/// Times kernels, and keeps account of how many of them others disturbed throughout.
#[derive(Debug, Default)]
pub(super) struct Timing {
    measured: u32,
    doubtful: u32,
}

impl Timing {
    /// Times a kernel; `None` where the backend cannot.
    pub fn of(&mut self, options: &MeasureOptions) -> Option<Measured> {
        let measured = beside(|waited| measure_beside(options, waited)).ok()?;
        self.measured += 1;
        self.doubtful += u32::from(measured.is_doubtful());
        Some(measured)
    }

    /// Seconds of a small node and of a call that computes one.
    pub fn overhead(threads: u32, duration: Duration) -> Option<(f64, f64)> {
        beside(|waited| overhead(None, threads, duration, waited)).ok()
    }

    /// Share of the kernels of which hardly a sample was undisturbed.
    pub fn doubtful_share(&self) -> Option<f64> {
        (self.measured > 0).then(|| f64::from(self.doubtful) / f64::from(self.measured))
    }
}

/// Has threads started and their waiting watched, where the system counts it.
fn beside<T>(
    measure: impl FnOnce(&mut dyn FnMut() -> Duration) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    let mut watched: Option<Option<WatchedThreads>> = None;
    // Asked first when the threads are there.
    let mut waited = || {
        let watched = watched.get_or_insert_with(|| WatchedThreads::named(THREADS));
        watched.as_ref().map_or(Duration::ZERO, WatchedThreads::waited)
    };
    with_thread_name(THREADS, || measure(&mut waited))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use hypura_ggml::measure::Kernel;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A profile taken beside other programs predicted 0.25 tokens a second for a model that does 4.
    #[test]
    fn rates_beside_busy_programs_are_those_of_a_quiet_machine() {
        let kernel = Kernel::MulMat { tokens: 1 };
        let duration = Duration::from_millis(60);
        let (columns, rows, matrices) = (2048, 1024, 32);
        let options =
            MeasureOptions { ty: 12, kernel, columns, rows, matrices, device: None, threads: 2, duration };
        let least = |timing: &mut Timing| {
            let of = |_| timing.of(&options).unwrap().usual_s;
            (0..4).map(of).fold(f64::MAX, f64::min)
        };
        let alone_s = least(&mut Timing::default());
        let stop = AtomicBool::new(false);
        let beside_s = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let beside_s = least(&mut Timing::default());
            stop.store(true, Ordering::Relaxed);
            beside_s
        });
        assert!(beside_s < alone_s * 1.5, "{beside_s} s a run, {alone_s} alone");
    }
}

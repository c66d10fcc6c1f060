//! How many threads compute: what that changes, what it does not, and who decides.

mod common;

use common::{hash, settings, tiny};
use hypura_core::plan::Residency;
use hypura_core::synth::{Quant, Shape};

#[test]
fn the_number_of_threads_changes_no_bit_within_512_cells() {
    for (shape, quant) in [
        (Shape::TinyLlama, Quant::Q4_0),
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyGptOss, Quant::MXFP4),
        (Shape::TinyKimiK2, Quant::Q8_0),
        (Shape::TinyGemma3, Quant::F16),
    ] {
        let model = tiny(shape, quant, 1);
        let of = |threads| hash(&model.path, settings(Residency::Resident).with_threads(threads));
        assert_eq!(of(2), of(1), "{shape:?}");
    }
}

/// On other systems nothing is known of what threads wait for.
#[cfg(target_os = "linux")]
mod beside_busy_programs {
    use crate::common::{demo_path, forced_run, session, streaming};
    use hypura_engine::load::default_threads;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    /// Runs `work` while each core has two other threads that want it.
    fn crowded<T>(work: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 * default_threads() {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let result = work();
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    #[test]
    fn fewer_threads_compute_and_no_bit_changes() {
        let all = default_threads().max(2);
        let mut quiet = session(&demo_path(), streaming(40.0));
        let expected = forced_run(&mut quiet, 40, 60).unwrap();
        let settings = streaming(40.0).with_threads(all).with_threads_may_fall(true);
        let outcome = crowded(|| forced_run(&mut session(&demo_path(), settings), 40, 60).unwrap());
        let used = outcome.decode_stats.threads;
        assert!(used.most == all && used.steps_with_fewer > 0, "{used:?}");
        assert!(used.waited.unwrap() > std::time::Duration::ZERO, "{used:?}");
        assert_eq!(outcome.logits_hash, expected.logits_hash);
    }

    #[test]
    fn a_number_of_threads_by_name_is_kept() {
        let mut session = session(&demo_path(), streaming(40.0).with_threads(2));
        let used = crowded(|| forced_run(&mut session, 8, 4).unwrap()).decode_stats.threads;
        assert_eq!((used.most, used.last, used.steps_with_fewer, used.waited), (2, 2, 0, None));
        assert!(used.steps >= 3, "{used:?}");
    }
}

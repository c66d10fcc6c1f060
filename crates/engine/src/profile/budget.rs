//! What measuring may take: at most 15 seconds, however slow the machine. Nothing here looks at a clock.
//!
//! The disk comes first and has an end of its own, so that there is always time for the processor; what there
//! is no time for stays unmeasured, the types of weights that are used least before the others.

use std::time::Duration;

/// All of it.
pub const MOST: Duration = Duration::from_secs(15);
/// The disk, scratch file included. A read that is out cannot be taken back: the last of them may come a
/// little later.
pub(super) const DISK_END: Duration = Duration::from_secs(7);
/// When no further type of weight is begun. Memory comes after that.
const CPU_END: Duration = Duration::from_millis(12_500);
/// The first touch of memory, which comes last.
pub(super) const TOUCH: Duration = Duration::from_millis(800);
/// When nothing is measured once more to be surer of it.
const REPEATS_END: Duration = Duration::from_millis(13_800);
/// The types that most models are made of are measured whatever it takes: without them nothing can be
/// predicted.
const LEAST_QUANTS: usize = 3;

/// What is left for the disk after `elapsed`.
pub(super) fn disk_left(elapsed: Duration) -> Duration {
    DISK_END.saturating_sub(elapsed)
}

/// Whether another type of weight is measured, when `measured` of them were, of which the slowest took
/// `longest`.
pub(super) fn may_measure_quant(elapsed: Duration, measured: usize, longest: Duration) -> bool {
    measured < LEAST_QUANTS || elapsed + longest <= CPU_END
}

/// Whether something that takes about `expected` is measured once more.
pub(super) fn may_repeat(elapsed: Duration, expected: Duration) -> bool {
    elapsed + expected <= REPEATS_END
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types that are measured in two rounds of ten on a machine that takes `each` of them, and when that
    /// ends.
    fn quants(start: Duration, each: Duration) -> (usize, Duration) {
        let (mut now, mut measured) = (start, 0);
        for _ in 0..20 {
            if !may_measure_quant(now, measured, if measured == 0 { Duration::ZERO } else { each }) {
                break;
            }
            now += each;
            measured += 1;
        }
        (measured, now)
    }

    #[test]
    fn whatever_a_type_takes_the_end_is_kept_and_the_usual_types_are_measured() {
        for ms in [50, 250, 400, 900, 1500, 1800] {
            let (measured, end) = quants(DISK_END, Duration::from_millis(ms));
            assert!(measured >= LEAST_QUANTS, "{ms} ms: {measured}");
            assert!(end <= CPU_END, "{ms} ms: {end:?}");
        }
        assert_eq!(quants(DISK_END, Duration::from_millis(250)).0, 20, "a usual machine measures all, twice");
    }

    #[test]
    fn the_disk_ends_in_time_and_repeats_only_fill_it() {
        assert_eq!(disk_left(Duration::from_secs(2)), Duration::from_secs(5));
        assert_eq!(disk_left(Duration::from_secs(9)), Duration::ZERO);
        assert!(may_repeat(Duration::from_secs(13), Duration::from_millis(400)));
        assert!(!may_repeat(Duration::from_secs(13), Duration::from_millis(900)));
        assert!(DISK_END < CPU_END && CPU_END < REPEATS_END && REPEATS_END < MOST);
    }
}

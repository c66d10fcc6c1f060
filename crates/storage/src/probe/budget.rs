//! How much of its time a probe may spend on what, decided from what it saw so far. Nothing here looks at a
//! clock.

use std::time::Duration;

const MIB: u64 = 1 << 20;
/// The first part of a scratch file, small because nobody knows yet how fast the disk writes, and the
/// largest.
const FIRST_STEP: u64 = 4 * MIB;
const LARGEST_STEP: u64 = 16 * MIB;
/// A smaller scratch file would be read from a drive's own cache.
const LEAST_SCRATCH: u64 = 64 * MIB;

/// What a writer of a scratch file does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write so many bytes, and see that they reach the disk.
    Write(u64),
    /// The file is large enough, or as large as there is time for.
    Enough,
    /// There is no time for a file that is worth reading.
    TooSlow,
}

/// The next step of a scratch file of `wanted` bytes, of which `written` took `took`, when all may take
/// `allowed`.
pub(super) fn next_step(written: u64, wanted: u64, took: Duration, allowed: Option<Duration>) -> Step {
    if written >= wanted {
        return Step::Enough;
    }
    let step = written.clamp(FIRST_STEP, LARGEST_STEP).min(wanted - written);
    if let Some(allowed) = allowed.filter(|_| written > 0) {
        let step_s = took.as_secs_f64() * step as f64 / written as f64;
        if took.as_secs_f64() + step_s > allowed.as_secs_f64() {
            return if written >= LEAST_SCRATCH.min(wanted) { Step::Enough } else { Step::TooSlow };
        }
    }
    Step::Write(step)
}

/// Whether there is time for a cell that reads for `cell` and then waits for the `in_flight_bytes` that are
/// still out. `bytes_per_s` is what the same reads reached with fewer of them at once; unknown for the first
/// of a row.
pub(super) fn has_time(
    left: Option<Duration>,
    cell: Duration,
    in_flight_bytes: u64,
    bytes_per_s: Option<f64>,
) -> bool {
    let drain_s = bytes_per_s.map_or(0.0, |rate| in_flight_bytes as f64 / rate.max(1.0));
    left.is_none_or(|left| left.as_secs_f64() >= cell.as_secs_f64() + drain_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_secs(3);

    /// Writes to a disk of which each byte takes `s_per_byte` of its offset: the file and the time it took.
    fn write(wanted: u64, s_per_byte: impl Fn(u64) -> f64) -> (Step, u64, f64) {
        let (mut written, mut took_s) = (0, 0.0);
        loop {
            match next_step(written, wanted, Duration::from_secs_f64(took_s), Some(ALLOWED)) {
                Step::Write(bytes) => {
                    assert!(bytes > 0 && written + bytes <= wanted);
                    took_s += s_per_byte(written) * bytes as f64;
                    written += bytes;
                }
                end => return (end, written, took_s),
            }
        }
    }

    #[test]
    fn a_fast_disk_gets_the_whole_file_and_a_slow_one_less_in_time() {
        assert_eq!(write(512 * MIB, |_| 1e-9).0, Step::Enough);
        assert_eq!(write(512 * MIB, |_| 1e-9).1, 512 * MIB);
        let (end, written, took_s) = write(512 * MIB, |_| 1.0 / 60e6);
        assert_eq!(end, Step::Enough);
        assert!((LEAST_SCRATCH..512 * MIB).contains(&written) && took_s <= 3.0, "{written} in {took_s}");
    }

    #[test]
    fn a_disk_too_slow_for_any_file_is_given_up_in_time() {
        for rate in [20e6, 5e6, 2e6] {
            let (end, _, took_s) = write(512 * MIB, |_| 1.0 / rate);
            assert_eq!(end, Step::TooSlow);
            assert!(took_s <= 3.0, "{took_s}");
        }
        // A file that was asked for so small is enough at any size.
        assert_eq!(write(4 * MIB, |_| 1.0 / 2e6), (Step::Enough, 4 * MIB, 4.0 * MIB as f64 / 2e6));
    }

    #[test]
    fn a_disk_that_grows_slow_costs_one_step_too_much_at_most() {
        let (end, _, took_s) = write(512 * MIB, |at| if at < 100 * MIB { 1.0 / 100e6 } else { 1.0 / 10e6 });
        assert_eq!(end, Step::Enough);
        assert!(took_s <= 3.0 + LARGEST_STEP as f64 / 10e6, "{took_s}");
    }

    #[test]
    fn a_cell_starts_only_if_its_last_reads_come_back_in_time() {
        let (left, cell) = (Some(Duration::from_millis(500)), Duration::from_millis(100));
        assert!(has_time(left, cell, 64 * MIB, None));
        assert!(has_time(left, cell, 64 * MIB, Some(1e9)));
        assert!(!has_time(left, cell, 64 * MIB, Some(1e8)));
        assert!(!has_time(Some(Duration::from_millis(99)), cell, 0, None));
        assert!(has_time(None, cell, u64::MAX, Some(1.0)));
    }
}

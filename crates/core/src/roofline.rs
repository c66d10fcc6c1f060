//! What a machine allows at most, and what binds: the one model behind `run`, `bench`, `plan` and the
//! simulator.
//!
//! Reading overlaps with computing, so with perfect overlap the slower of the two decides (Williams,
//! Waterman, Patterson: "Roofline", 2009): `tokens/s ≤ 1 / max(C, R / B)`, with *C* the computing seconds of
//! a token, *R* its bytes from the disk ([`Reads`]) and *B* the bytes that the disk delivers a second.
//!
//! Invariants: pure; one rule for measured and for predicted times, so that two reports of one run name the
//! same cause.

use serde::{Deserialize, Serialize};

/// What binds a stretch of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoundBy {
    /// Reading weights.
    Disk,
    /// Multiplying weights.
    Compute,
    /// All else that the processor does: dispatching nodes, waking threads, sampling, printing.
    Sync,
    /// Hidden states on their way to other machines and back; only predicted.
    Link,
}

impl BoundBy {
    /// Name for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Compute => "compute",
            Self::Sync => "sync",
            Self::Link => "link",
        }
    }
}

/// How long disk and processor work on something, a token or a prompt, in seconds. Reading overlaps with the
/// others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// The disk has something to read.
    pub read_s: f64,
    /// Weights are multiplied.
    pub compute_s: f64,
    /// The processor does anything else.
    pub sync_s: f64,
}

impl Times {
    /// Seconds with perfect overlap.
    #[must_use]
    pub const fn least_s(&self) -> f64 {
        self.read_s.max(self.compute_s + self.sync_s)
    }

    /// The disk where it works longer than the processor, otherwise what the processor spends more time on.
    /// Of work that took a known time this says the same as: whichever of the two waited less for the other.
    #[must_use]
    pub fn bound_by(&self) -> BoundBy {
        if self.read_s > self.compute_s + self.sync_s {
            BoundBy::Disk
        } else if self.compute_s >= self.sync_s {
            BoundBy::Compute
        } else {
            BoundBy::Sync
        }
    }

    /// From a measurement: `wall_s` seconds in all, of which the disk was busy for `read_s`, and the
    /// processor multiplied for `compute_s` and had nothing to do but wait for the disk for `stall_s`.
    #[must_use]
    pub const fn measured(wall_s: f64, read_s: f64, compute_s: f64, stall_s: f64) -> Self {
        // Two streams that read at the same time are each counted.
        Self { read_s: read_s.min(wall_s), compute_s, sync_s: (wall_s - compute_s - stall_s).max(0.0) }
    }
}

/// What must be read for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reads {
    /// Experts that were not in memory.
    Moe {
        /// h: share of the lookups that hit.
        hit_rate: f64,
        /// A: bytes of the routed experts of one token.
        routed_bytes: f64,
    },
    /// Dense weights that are not in memory.
    Dense {
        /// f: share of the streamable bytes that is resident.
        resident_fraction: f64,
        /// S: streamable bytes.
        streamable_bytes: f64,
    },
}

impl Reads {
    /// R: bytes that the disk must deliver for a token.
    #[must_use]
    pub fn bytes_per_token(&self) -> f64 {
        match *self {
            Self::Moe { hit_rate, routed_bytes } => (1.0 - hit_rate) * routed_bytes,
            Self::Dense { resident_fraction, streamable_bytes } => {
                (1.0 - resident_fraction) * streamable_bytes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(read_s: f64, compute_s: f64, sync_s: f64) -> Times {
        Times { read_s, compute_s, sync_s }
    }

    #[test]
    fn what_takes_longest_binds_and_sets_the_least_time() {
        for (times, bound, least_s) in [
            (times(3.0, 1.0, 1.0), BoundBy::Disk, 3.0),
            (times(2.0, 1.5, 1.0), BoundBy::Compute, 2.5),
            (times(0.0, 1.0, 1.5), BoundBy::Sync, 2.5),
            (times(2.0, 2.0, 0.0), BoundBy::Compute, 2.0),
            (Times::default(), BoundBy::Compute, 0.0),
        ] {
            assert_eq!((times.bound_by(), times.least_s()), (bound, least_s), "{times:?}");
        }
    }

    #[test]
    fn a_measured_run_is_bound_by_whoever_waited_less() {
        // Ten seconds: the disk idles for `10 - read`, the processor waits for `stall`.
        for (read_s, stall_s, bound) in [
            (9.0, 2.0, BoundBy::Disk),
            (7.0, 2.0, BoundBy::Compute),
            (10.0, 0.5, BoundBy::Disk),
            (0.0, 0.0, BoundBy::Compute),
        ] {
            let times = Times::measured(10.0, read_s, 10.0 - stall_s, stall_s);
            assert_eq!(times.bound_by(), bound, "{times:?}");
        }
        assert_eq!(Times::measured(10.0, 1.0, 3.0, 1.0).bound_by(), BoundBy::Sync, "6 s went nowhere");
        let twice = Times::measured(10.0, 15.0, 9.0, 0.5);
        assert_eq!((twice.read_s, twice.bound_by()), (10.0, BoundBy::Disk), "two streams, one disk");
    }

    #[test]
    fn a_prediction_that_comes_true_names_the_same_cause_as_its_measurement() {
        for (read_s, compute_s, sync_s) in
            [(2.0, 1.0, 0.5), (1.0, 2.0, 0.5), (0.5, 0.4, 0.7), (1.0, 0.5, 0.5)]
        {
            let predicted = times(read_s, compute_s, sync_s);
            let wall_s = predicted.least_s();
            let stall_s = wall_s - compute_s - sync_s;
            let measured = Times::measured(wall_s, read_s, compute_s, stall_s);
            assert_eq!(measured.bound_by(), predicted.bound_by(), "{predicted:?}");
        }
    }

    #[test]
    fn what_is_in_memory_is_not_read() {
        let moe = Reads::Moe { hit_rate: 0.75, routed_bytes: 1e9 };
        let dense = Reads::Dense { resident_fraction: 0.5, streamable_bytes: 40e9 };
        assert_eq!((moe.bytes_per_token(), dense.bytes_per_token()), (0.25e9, 20e9));
    }
}

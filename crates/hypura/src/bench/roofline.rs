//! How close a run came to what disk and processor allow, by [`hypura_core::roofline`].

use hypura_core::roofline::{BoundBy, Reads, Times};
use serde::{Deserialize, Serialize};

/// Where the compute time of a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComputeSource {
    /// Token time of the resident arm.
    ResidentArm,
    /// The same run, waits for the disk excluded.
    SameRun,
}

/// The limit of one run and how close it came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roofline {
    /// C: compute time of a token in milliseconds.
    pub compute_ms: f64,
    /// Where C comes from.
    pub compute_source: ComputeSource,
    /// Bytes that the disk must deliver for a token.
    pub read_bytes: f64,
    /// B: what the disk delivers, in bytes/s, measured around the run.
    pub disk_bytes_per_s: f64,
    /// Time the disk needs for a token, in milliseconds.
    pub read_ms: f64,
    /// The limit in tokens/s.
    pub limit_tps: f64,
    /// Measured tokens/s over the limit.
    pub efficiency: f64,
    /// What sets the limit. What bound the run itself, whose overlap is not perfect, is
    /// [`super::snapshot::Phase::bound_by`].
    pub bound_by: BoundBy,
}

impl Roofline {
    /// Compares a speed with its limit. `None` when there is no limit to compare with: no time was measured,
    /// or nothing of a dense model has to be read.
    #[must_use]
    pub fn new(
        tps: f64,
        compute_s: f64,
        compute_source: ComputeSource,
        reads: &Reads,
        disk_bytes_per_s: f64,
    ) -> Option<Self> {
        let read_bytes = reads.bytes_per_token();
        let read_s = read_bytes / disk_bytes_per_s;
        let times = Times { read_s, compute_s, sync_s: 0.0 };
        let limit_s = times.least_s();
        let streams = read_s > 0.0 || matches!(reads, Reads::Moe { .. });
        if !(streams && limit_s.is_finite() && limit_s > 0.0) {
            return None;
        }
        Some(Self {
            compute_ms: compute_s * 1e3,
            compute_source,
            read_bytes,
            disk_bytes_per_s,
            read_ms: read_s * 1e3,
            limit_tps: 1.0 / limit_s,
            efficiency: tps * limit_s,
            bound_by: times.bound_by(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moe(tps: f64, compute_s: f64, hit_rate: f64) -> Roofline {
        let reads = Reads::Moe { hit_rate, routed_bytes: 1e9 };
        Roofline::new(tps, compute_s, ComputeSource::SameRun, &reads, 2e9).unwrap()
    }

    #[test]
    fn an_moe_model_is_bound_by_the_slower_of_disk_and_processor() {
        let disk = moe(4.0, 0.1, 0.6);
        assert!((disk.read_ms - 200.0).abs() < 1e-9 && (disk.limit_tps - 5.0).abs() < 1e-9);
        assert!((disk.efficiency - 0.8).abs() < 1e-9);
        assert_eq!(disk.bound_by, BoundBy::Disk);
        let compute = moe(9.0, 0.1, 0.9);
        assert!((compute.limit_tps - 10.0).abs() < 1e-9 && (compute.efficiency - 0.9).abs() < 1e-9);
        assert_eq!(compute.bound_by, BoundBy::Compute);
    }

    #[test]
    fn a_dense_model_is_held_against_the_disk_unless_computing_takes_longer() {
        let reads = Reads::Dense { resident_fraction: 0.5, streamable_bytes: 40e9 };
        let found = Roofline::new(0.095, 1.0, ComputeSource::SameRun, &reads, 2e9).unwrap();
        assert!((found.limit_tps - 0.1).abs() < 1e-9 && (found.efficiency - 0.95).abs() < 1e-9);
        assert_eq!(found.bound_by, BoundBy::Disk);
        let fast_disk = Roofline::new(0.9, 1.0, ComputeSource::SameRun, &reads, 40e9).unwrap();
        assert!((fast_disk.limit_tps - 1.0).abs() < 1e-9 && (fast_disk.efficiency - 0.9).abs() < 1e-9);
        assert_eq!(fast_disk.bound_by, BoundBy::Compute);
    }

    #[test]
    fn without_a_limit_there_is_no_efficiency() {
        let all = Reads::Dense { resident_fraction: 1.0, streamable_bytes: 40e9 };
        assert_eq!(Roofline::new(1.0, 1.0, ComputeSource::SameRun, &all, 2e9), None);
        let reads = Reads::Moe { hit_rate: 0.5, routed_bytes: 1e9 };
        assert_eq!(Roofline::new(1.0, 0.1, ComputeSource::SameRun, &reads, 0.0), None);
    }
}

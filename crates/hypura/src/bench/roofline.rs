//! How close a run came to what disk and processor allow.
//!
//! The formulas are those of docs/architecture.md: C compute s/token, B disk bytes/s, A routed bytes/token, h hit rate,
//! S streamable bytes, f their resident share.
//! MoE: `tok/s <= 1 / max(C, (1 - h) * A / B)`. Dense: `tok/s <= B / ((1 - f) * S)`.

use serde::{Deserialize, Serialize};

/// What bounds a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Reading takes longer than computing.
    Disk,
    /// Computing takes longer than reading.
    Compute,
}

impl Bound {
    /// Name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Compute => "compute",
        }
    }
}

/// Where the compute time of a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComputeSource {
    /// Token time of the resident arm.
    ResidentArm,
    /// The same run, waits for the disk excluded.
    SameRun,
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
    /// Bytes that the disk must deliver for a token.
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
    /// What the limit comes from.
    pub bound_by: Bound,
}

impl Roofline {
    /// Compares a speed with its limit. `None` when there is no limit to compare with: no time was measured, or
    /// (dense) nothing has to be read.
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
        let limit_s = match reads {
            Reads::Moe { .. } => compute_s.max(read_s),
            // The disk alone: a dense model that streams is bound by it on every machine that we know.
            Reads::Dense { .. } => read_s,
        };
        if !(limit_s.is_finite() && limit_s > 0.0) {
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
            bound_by: if read_s >= compute_s { Bound::Disk } else { Bound::Compute },
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
        assert_eq!(disk.bound_by, Bound::Disk);
        let compute = moe(9.0, 0.1, 0.9);
        assert!((compute.limit_tps - 10.0).abs() < 1e-9 && (compute.efficiency - 0.9).abs() < 1e-9);
        assert_eq!(compute.bound_by, Bound::Compute);
    }

    #[test]
    fn a_dense_model_is_held_against_the_disk() {
        let reads = Reads::Dense { resident_fraction: 0.5, streamable_bytes: 40e9 };
        let found = Roofline::new(0.095, 1.0, ComputeSource::SameRun, &reads, 2e9).unwrap();
        assert!((found.limit_tps - 0.1).abs() < 1e-9 && (found.efficiency - 0.95).abs() < 1e-9);
        assert_eq!(found.bound_by, Bound::Disk);
    }

    #[test]
    fn without_a_limit_there_is_no_efficiency() {
        let all = Reads::Dense { resident_fraction: 1.0, streamable_bytes: 40e9 };
        assert_eq!(Roofline::new(1.0, 1.0, ComputeSource::SameRun, &all, 2e9), None);
        let reads = Reads::Moe { hit_rate: 0.5, routed_bytes: 1e9 };
        assert_eq!(Roofline::new(1.0, 0.1, ComputeSource::SameRun, &reads, 0.0), None);
    }
}

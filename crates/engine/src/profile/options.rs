//! What to measure, and how thoroughly.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to measure.
#[derive(Clone, Debug)]
pub struct ProfileOptions {
    /// The directory whose disk counts, or a large file on it (which spares writing one).
    pub target: PathBuf,
    /// Whether the disk is measured. A plan that assumes another one needs none.
    pub disk: bool,
    /// Threads that compute.
    pub threads: u32,
    /// How long each of the about fifty small measurements takes.
    pub cell: Duration,
    /// Size of the file that is written when the target is a directory.
    pub scratch_bytes: u64,
    /// Least bytes of weights in a measurement: more than the caches hold.
    pub weight_bytes: u64,
}

impl ProfileOptions {
    /// The usual thoroughness.
    #[must_use]
    pub fn new(target: &Path, threads: u32) -> Self {
        Self {
            target: target.to_owned(),
            disk: true,
            threads,
            cell: Duration::from_millis(80),
            scratch_bytes: 512 << 20,
            weight_bytes: 192 << 20,
        }
    }
}

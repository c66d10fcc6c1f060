//! The disk as the readers use it.

use crate::profile::{Pattern, Storage};

/// Requests larger than this go to the device in pieces of it (the readers' default chunk, which the engine
/// checks).
pub const CHUNK_BYTES: u64 = 1 << 20;

/// Most pieces at the device at the same time (the readers' default depth, which the engine checks).
pub const READER_DEPTH: f64 = 64.0;

/// The disk as the readers use it.
pub(super) struct Disk<'a> {
    pub(super) storage: Option<&'a Storage>,
}

impl Disk<'_> {
    /// Seconds to read `bytes` with up to `depth` chunks at the device; 0 for 0 bytes, whatever the disk.
    pub(super) fn seconds(&self, pattern: Pattern, bytes: f64, depth: f64) -> Option<f64> {
        if bytes <= 0.0 {
            return Some(0.0);
        }
        self.rate(pattern, CHUNK_BYTES, depth).map(|rate| bytes / rate)
    }

    /// Seconds of a burst of `count` requests of `bytes` each that are submitted together.
    pub(super) fn burst_seconds(&self, count: f64, bytes: u64) -> Option<f64> {
        if count <= 0.0 || bytes == 0 {
            return Some(0.0);
        }
        let pieces = count * bytes.div_ceil(CHUNK_BYTES) as f64;
        let depth = pieces.clamp(1.0, READER_DEPTH);
        let rate = self.rate(Pattern::Random, bytes.min(CHUNK_BYTES), depth)?;
        Some(count * bytes as f64 / rate)
    }

    /// The pattern's rate; the other pattern's where only that was measured.
    fn rate(&self, pattern: Pattern, request_bytes: u64, depth: f64) -> Option<f64> {
        let storage = self.storage?;
        let other = match pattern {
            Pattern::Sequential => Pattern::Random,
            Pattern::Random => Pattern::Sequential,
        };
        let rate = |pattern| storage.rate(pattern, request_bytes, depth);
        rate(pattern).or_else(|| rate(other)).filter(|rate| *rate > 0.0)
    }

    /// Seconds to read `bytes` at the best rate that was measured, whatever the pattern, size and depth.
    pub(super) fn best_seconds(&self, bytes: f64) -> Option<f64> {
        if bytes <= 0.0 {
            return Some(0.0);
        }
        let rates = self.storage?.reads.iter().filter_map(|read| read.bytes_per_s);
        rates.filter(|rate| *rate > 0.0).max_by(f64::total_cmp).map(|rate| bytes / rate)
    }
}

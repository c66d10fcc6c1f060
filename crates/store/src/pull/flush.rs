//! What is written gets to the disk in steps, so that a crash of the machine costs little. What is on the
//! disk and hashed leaves the page cache: memory is for models that run.
//!
//! A flush that writes all of a step at once stands between a running model and its disk for as long as that
//! takes. So the system is told to begin with each piece right after it came ([`Begun`]), and a flush finds
//! little to do.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::PullError;
use super::parts::{Failure, Parts};

/// Flushes parts as they come, until all are on the disk or the file is stopped.
pub(super) fn follow(parts: &Parts<'_>, hashed: &AtomicU64) {
    while let Some((count, bytes)) = parts.wait_to_flush() {
        let synced = parts.file.sync_data().map_err(PullError::io("write", parts.path));
        if let Err(error) = synced.and_then(|()| parts.flushed(count, bytes)) {
            parts.fail(Failure::Error(error));
            return;
        }
        forget(parts, hashed.load(Ordering::Relaxed));
        if parts.is_stopped() {
            return;
        }
    }
}

/// The system begins to write pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// How far the system was told to write what one connection brings.
pub(super) struct Begun(u64);

impl Begun {
    /// What comes begins at `offset`.
    pub const fn new(offset: u64) -> Self {
        Self(offset)
    }

    /// The bytes up to `offset` are in the page cache.
    pub fn arrived(&mut self, parts: &Parts<'_>, offset: u64) {
        if let Some(piece) = self.next(offset) {
            dont_need(parts, piece.start, piece.end - piece.start);
        }
    }

    /// What of the bytes up to `offset` is to be begun now: whole pieces, so that no page is written twice.
    fn next(&mut self, offset: u64) -> Option<Range<u64>> {
        let whole = offset - offset % PIECE_BYTES;
        let piece = (whole > self.0).then_some(self.0..whole)?;
        self.0 = whole;
        Some(piece)
    }
}

/// Takes the first bytes of the file out of the page cache, as far as they are clean.
fn forget(parts: &Parts<'_>, bytes: u64) {
    dont_need(parts, 0, bytes);
}

/// Linux drops what is clean, and begins to write what is not, without waiting for it.
#[cfg(target_os = "linux")]
fn dont_need(parts: &Parts<'_>, offset: u64, bytes: u64) {
    if let Some(bytes) = std::num::NonZeroU64::new(bytes) {
        // A hint: without it the cache only holds more for a while.
        let _ = rustix::fs::fadvise(parts.file, offset, Some(bytes), rustix::fs::Advice::DontNeed);
    }
}

#[cfg(not(target_os = "linux"))]
fn dont_need(_: &Parts<'_>, _: u64, _: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mebibyte_is_begun_once_when_all_of_it_is_there() {
        const KIB: u64 = 1 << 10;
        let mut begun = Begun::new(512 * KIB);
        let pieces: Vec<_> = (1..=12).filter_map(|step| begun.next((512 + 300 * step) * KIB)).collect();
        let ends: Vec<_> = pieces.iter().map(|piece| piece.end / KIB).collect();
        assert_eq!((pieces[0].start, ends), (512 * KIB, vec![1024, 2048, 3072, 4096]));
        assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}

//! SHA-256 of a file that arrives, in order behind the writes: what is hashed was written a moment ago, and
//! is read from the page cache.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::PullError;
use super::parts::{Failure, Parts};
use crate::digest::{Digest, Hasher};

/// Read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Hashes parts as they come; `None` when the file was stopped. `hashed` is how far it is.
pub(super) fn follow(parts: &Parts<'_>, hashed: &AtomicU64) -> Option<Digest> {
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    for index in 0..parts.count() {
        if !parts.wait_for(index) {
            return None;
        }
        if let Err(error) = part(parts, index, &mut hasher, &mut chunk, hashed) {
            parts.fail(Failure::Error(PullError::io("read", parts.path)(error)));
            return None;
        }
        if parts.is_stopped() {
            return None;
        }
    }
    Some(hasher.finish())
}

fn part(
    parts: &Parts<'_>,
    index: usize,
    hasher: &mut Hasher,
    chunk: &mut [u8],
    hashed: &AtomicU64,
) -> io::Result<()> {
    let range = parts.range_of(index..index + 1);
    let mut at = range.start;
    while at < range.end && !parts.is_stopped() {
        let most = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(chunk.len());
        parts.file.read_exact_at(&mut chunk[..most], at)?;
        hasher.update(&chunk[..most]);
        at += most as u64;
        hashed.store(at, Ordering::Relaxed);
    }
    Ok(())
}

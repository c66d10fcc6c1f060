//! Whether the disk has room for what is missing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::PullError;

/// Stays free: file systems and other programs need some, too.
const RESERVE_BYTES: u64 = 64 << 20;
/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// Bytes that may be written where a folder is, or will be.
pub(super) fn free_bytes(folder: &Path) -> Result<u64, PullError> {
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let about = rustix::fs::statvfs(existing)
        .map_err(|error| PullError::io("look at the disk of", existing)(error.into()))?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

/// Bytes that a file takes on the disk: of one with holes less than its length.
pub(super) fn taken_bytes(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |about| about.blocks().saturating_mul(BLOCK_BYTES).min(about.len()))
}

/// Refuses what does not fit.
pub(super) fn check(missing_bytes: u64, free_bytes: u64) -> Result<(), PullError> {
    let fits = missing_bytes == 0 || missing_bytes.saturating_add(RESERVE_BYTES) <= free_bytes;
    if fits { Ok(()) } else { Err(PullError::NoRoom { missing_bytes, free_bytes }) }
}

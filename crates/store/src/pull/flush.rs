//! What is written gets to the disk in steps, so that a crash of the machine costs little and no flood of
//! dirty pages stands between a running model and its disk. What is on the disk and hashed leaves the page
//! cache: memory is for models that run.

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

/// Takes the first bytes of the file out of the page cache, as far as they are clean.
#[cfg(target_os = "linux")]
fn forget(parts: &Parts<'_>, bytes: u64) {
    if let Some(bytes) = std::num::NonZeroU64::new(bytes) {
        // A hint: without it the cache only holds more for a while.
        let _ = rustix::fs::fadvise(parts.file, 0, Some(bytes), rustix::fs::Advice::DontNeed);
    }
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &Parts<'_>, _: u64) {}

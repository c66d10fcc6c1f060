//! Where a file is while it arrives: its bytes, its journal, and the lock that makes one download of several.
//!
//! The lock is the one that Hugging Face's own tools take for a file of their cache, so they wait too.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::PullError;
use crate::Digest;
use crate::fetch::HubPlace;
use crate::files::not_a_link;
use crate::layout::Layout;

/// Folder of our own store for what is not whole.
const PARTIAL_FOLDER: &str = "partial";
/// How names of files from URLs begin there.
const URL_START: &str = "url-";
pub(super) const DATA_END: &str = ".partial";
pub(super) const JOURNAL_END: &str = ".parts";
pub(super) const LOCK_END: &str = ".lock";

/// The places of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Landing {
    /// Where it is once it is whole; `None` until its digest is known.
    pub blob: Option<PathBuf>,
    pub data: PathBuf,
    pub journal: PathBuf,
    pub lock: PathBuf,
    /// Whether the file of the lock goes when nobody needs it any more.
    own_lock: bool,
}

/// The right to write a file, until it is dropped.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub(super) struct LandingLock {
    file: File,
}

impl Drop for LandingLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is being started by another thread has a copy of it
        // until it runs its own program, and the lock would be held for so long.
        let _ = self.file.unlock();
    }
}

impl Landing {
    /// Of a blob of our own store.
    pub fn of_blob(own: &Layout, digest: &Digest) -> Self {
        let blob = Some(own.blob(digest));
        Self { blob, ..Self::in_own(own.root(), &format!("sha256-{}", digest.hex())) }
    }

    /// Of the file at a URL.
    pub fn of_url(own: &Layout, url: &str) -> Self {
        Self::in_own(own.root(), &format!("{URL_START}{}", Digest::of(url.as_bytes()).hex()))
    }

    /// Whether it is of the file at a URL.
    pub fn is_of_url(&self) -> bool {
        let name = self.data.file_name().map(|name| name.to_string_lossy());
        self.own_lock && name.is_some_and(|name| name.starts_with(URL_START))
    }

    fn in_own(root: &Path, name: &str) -> Self {
        let at = |end: &str| root.join(PARTIAL_FOLDER).join(format!("{name}{end}"));
        let (data, journal, lock) = (at(DATA_END), at(JOURNAL_END), at(LOCK_END));
        Self { blob: None, data, journal, lock, own_lock: true }
    }

    /// Of a file in Hugging Face's cache, by what its blob is called.
    pub fn of_hub(hub: &Path, place: &HubPlace, etag: &str) -> Self {
        Self::in_repository(hub, &place.folder_name(), etag)
    }

    pub fn in_repository(hub: &Path, folder: &str, etag: &str) -> Self {
        let blobs = hub.join(folder).join("blobs");
        Self {
            blob: Some(blobs.join(etag)),
            data: blobs.join(format!("{etag}{DATA_END}")),
            journal: blobs.join(format!("{etag}{JOURNAL_END}")),
            lock: hub.join(".locks").join(folder).join(format!("{etag}{LOCK_END}")),
            own_lock: false,
        }
    }

    /// The landing that a journal of our own store belongs to.
    pub fn of_own_journal(root: &Path, name: &str) -> Self {
        Self::in_own(root, name)
    }

    /// Whether the file is here, whole.
    pub fn is_whole(&self, bytes: u64) -> bool {
        let about = self.blob.as_ref().and_then(|blob| fs::metadata(blob).ok());
        about.is_some_and(|about| about.is_file() && about.len() == bytes)
    }

    /// Takes the lock if nobody has it.
    pub fn try_lock(&self) -> Result<Option<LandingLock>, PullError> {
        let folder = self.lock.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(PullError::io("make the folder", folder))?;
        let failed = |error| PullError::io("lock", &self.lock)(error);
        let file = not_a_link().write(true).create(true).truncate(false).open(&self.lock);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            // Some network file systems have no locks.
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Whoever had it may have removed the file just before: then another one is the lock now.
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let current = file.metadata().ok().zip(fs::metadata(&self.lock).ok());
        Ok(current.is_some_and(|(held, named)| same(held, named)).then_some(LandingLock { file }))
    }

    /// Removes what is there of the file. Only for whoever has the lock.
    pub fn discard(&self, _lock: &LandingLock) {
        // What cannot be removed is told by the next attempt to write it.
        let _ = fs::remove_file(&self.data);
        self.remove_journal();
    }

    /// Gives the whole file its name, and takes away what it needed while it arrived.
    pub fn adopt(&self, blob: &Path, lock: &LandingLock) -> Result<(), PullError> {
        let failed = PullError::io("write", blob);
        let folder = blob.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(PullError::io("make the folder", folder))?;
        fs::rename(&self.data, blob).map_err(failed)?;
        self.release(lock);
        Ok(())
    }

    fn remove_journal(&self) {
        let _ = fs::remove_file(&self.journal);
        let _ = fs::remove_file(super::journal::new_name(&self.journal));
    }

    /// Takes away what the file needed while it arrived.
    pub fn release(&self, _lock: &LandingLock) {
        self.remove_journal();
        if self.own_lock {
            let _ = fs::remove_file(&self.lock);
        }
    }
}

impl HubPlace {
    /// The repository's folder in a cache.
    pub fn folder_name(&self) -> String {
        format!("models--{}", self.repo.replace('/', "--"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_dropped_is_free_although_a_process_that_starts_has_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let landing = Landing::of_url(&Layout::new(folder.path()), "https://x/m.gguf");
        let lock = landing.try_lock().unwrap().unwrap();
        // What a fork leaves in the child until it runs its program.
        let copy = lock.file.try_clone().unwrap();
        assert!(landing.try_lock().unwrap().is_none());
        drop(lock);
        assert!(landing.try_lock().unwrap().is_some());
        drop(copy);
    }
}

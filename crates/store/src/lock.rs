//! The lock of our own store, which several processes may change at once.
//!
//! A blob is safe once a manifest names it. Whoever finds a blob present and is going to name it holds the
//! lock from the one to the other, and whoever removes blobs holds it while looking at the manifests and
//! removing: otherwise a model could be deleted between the two and take a shared blob along. Everything slow
//! (hashing, receiving) is done before.

use std::fs::File;
use std::io;

use super::StoreError;
use super::layout::Layout;

/// Hidden, so that it is taken for nothing else.
const LOCK_FILE: &str = ".lock";

/// The right to name and remove blobs, until it is dropped.
#[must_use = "the lock is released when this is dropped"]
pub(super) struct StoreLock {
    /// The system releases the lock when it is closed, also when the process dies.
    _file: File,
}

impl StoreLock {
    /// Waits until nobody else has the lock of this store.
    pub fn acquire(layout: &Layout) -> Result<Self, StoreError> {
        let root = layout.root();
        super::files::make_private_folder(root).map_err(StoreError::io("make the folder", root))?;
        let path = root.join(LOCK_FILE);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(StoreError::io("write", &path))?;
        match file.lock() {
            // Some network file systems have no locks; a store on one is changed as carefully as can be.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                Err(StoreError::io("lock", path)(error))
            }
            _ => Ok(Self { _file: file }),
        }
    }
}

//! Blobs coming in: streamed to a temporary file, hashed on the way, and given their name only when they are
//! whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::digest::{Digest, Hasher};
use super::files::{create_private, make_private_folder, unique};
use super::layout::Layout;
use super::{Store, StoreError};

/// A temporary file that nobody has written to for this long belongs to a program that died.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is new.
    Created,
    /// It was there already.
    Present,
}

/// A blob that is being received. Dropped before [`Self::finish`], it leaves nothing.
pub struct BlobWriter {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    expected: Digest,
    hasher: Hasher,
    finished: bool,
}

impl Store {
    /// The size of a blob of our own store in bytes, if it is there.
    ///
    /// # Errors
    /// When there is no store to look in.
    pub fn blob_bytes(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let about = fs::metadata(self.own()?.blob(digest)).ok().filter(fs::Metadata::is_file);
        Ok(about.map(|about| about.len()))
    }

    /// Begins to receive a blob; `None` when it is there already and its bytes need not be read.
    ///
    /// # Errors
    /// When our store cannot be written to.
    pub fn receive_blob(&self, digest: &Digest) -> Result<Option<BlobWriter>, StoreError> {
        let layout = self.own()?;
        if self.blob_bytes(digest)?.is_some() {
            return Ok(None);
        }
        let folder = layout.root().join("incoming");
        make_private_folder(&folder).map_err(StoreError::io("make the folder", &folder))?;
        remove_abandoned(&folder);
        let temporary = folder.join(unique());
        let file = create_private(&temporary).map_err(StoreError::io("write", &temporary))?;
        let target = layout.blob(digest);
        let (expected, hasher) = (digest.clone(), Hasher::default());
        Ok(Some(BlobWriter { file, temporary, target, expected, hasher, finished: false }))
    }
}

/// Removes what programs that ended early left in our own store of blobs that they received or quantised.
pub fn remove_leftovers(store: &Store) {
    if let Ok(layout) = store.own() {
        remove_abandoned(&layout.root().join("incoming"));
    }
}

impl BlobWriter {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(StoreError::io("write", &self.temporary))
    }

    /// Checks the digest and gives the blob its name.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`], or what the system says.
    pub fn finish(mut self) -> Result<Stored, StoreError> {
        let got = std::mem::take(&mut self.hasher).finish();
        if got != self.expected {
            return Err(StoreError::DigestMismatch {
                expected: self.expected.to_string(),
                got: got.to_string(),
            });
        }
        self.file.sync_all().map_err(StoreError::io("write", &self.temporary))?;
        adopt(&self.temporary, &self.target)?;
        self.finished = true;
        Ok(Stored::Created)
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Whatever remains is removed as abandoned one day.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Stores these bytes as a blob of a layout.
pub(super) fn store_bytes(layout: &Layout, bytes: &[u8]) -> Result<(Digest, Stored), StoreError> {
    let digest = Digest::of(bytes);
    let path = layout.blob(&digest);
    if fs::metadata(&path).is_ok_and(|about| about.len() == bytes.len() as u64) {
        return Ok((digest, Stored::Present));
    }
    super::files::write_atomically(&path, bytes).map_err(StoreError::io("write", path))?;
    Ok((digest, Stored::Created))
}

/// Makes a file a blob of the layout: by a hard link, so that it stays when the other name goes; across file
/// systems, or where the system forbids such links, by a symbolic one.
pub(super) fn link_blob(
    layout: &Layout,
    path: &Path,
    digest: &Digest,
    size: u64,
) -> Result<Stored, StoreError> {
    let blob = layout.blob(digest);
    if fs::metadata(&blob).is_ok_and(|about| about.len() == size) {
        return Ok(Stored::Present);
    }
    if let Some(folder) = blob.parent() {
        make_private_folder(folder).map_err(StoreError::io("make the folder", folder))?;
    }
    let real = fs::canonicalize(path).map_err(StoreError::io("read", path))?;
    // A link that leads nowhere any more may be in the way.
    let _ = fs::remove_file(&blob);
    let linked = fs::hard_link(&real, &blob).or_else(|_| symlink(&real, &blob));
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(StoreError::io("link", blob)(error))
        }
        _ => Ok(Stored::Created),
    }
}

/// Moves a whole file to its place.
fn adopt(from: &Path, to: &Path) -> Result<(), StoreError> {
    if let Some(folder) = to.parent() {
        make_private_folder(folder).map_err(StoreError::io("make the folder", folder))?;
    }
    fs::rename(from, to).map_err(StoreError::io("write", to))
}

fn remove_abandoned(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let written =
            entry.metadata().and_then(|about: fs::Metadata| -> io::Result<SystemTime> { about.modified() });
        if written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > ABANDONED)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

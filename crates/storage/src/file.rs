//! [`SourceFile`]: a file that is read. It owns the descriptor, opened once, and knows whether its reads bypass the
//! page cache and which alignment they need.
//!
//! Invariant: `is_direct()` is true only when the system accepted direct I/O *and* one direct read succeeded.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arena::{Arena, HugePages};
use crate::error::OpenError;
use crate::platform::{self, DirectIo};
use crate::{PAGE, ReadError};

/// How to open a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OpenMode {
    /// Past the page cache where the file system can; otherwise buffered, which `is_direct` then tells.
    #[default]
    Direct,
    /// Through the page cache.
    Buffered,
}

/// What a read must be a multiple of, in bytes. Both are powers of two and at most [`PAGE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// The address in memory.
    pub memory: usize,
    /// The offset in the file, and the length.
    pub offset: usize,
}

/// An open file. Share it by `Arc`; readers keep it open until their reads are done.
#[derive(Debug)]
pub struct SourceFile {
    id: u64,
    path: Arc<Path>,
    file: File,
    opened: Stamp,
    alignment: Alignment,
    buffered_because: Option<String>,
}

/// What tells whether a file is still the one that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl SourceFile {
    /// Opens `path` for direct reads, or buffered ones where the file system refuses them.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<SourceFile>, OpenError> {
        Self::open_as(path, OpenMode::Direct)
    }

    /// Opens `path` in the given mode.
    pub fn open_as(path: impl AsRef<Path>, mode: OpenMode) -> Result<Arc<SourceFile>, OpenError> {
        let path = path.as_ref();
        let named = |source| OpenError { path: path.to_owned(), source };
        // The buffered descriptor comes first: its errors (no such file, no permission) are those of the file
        // itself.
        let buffered = File::open(path).map_err(named)?;
        let metadata = buffered.metadata().map_err(named)?;
        if !metadata.is_file() {
            return Err(named(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
        }
        let (file, alignment, buffered_because) = match mode {
            OpenMode::Buffered => (buffered, BUFFERED, Some("buffered reads were asked for".to_owned())),
            OpenMode::Direct => match open_direct(path, metadata.len()) {
                Ok((file, alignment)) => (file, alignment, None),
                Err(reason) => (buffered, BUFFERED, Some(reason)),
            },
        };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let opened = Stamp::of(&file.metadata().map_err(named)?);
        Ok(Arc::new(SourceFile { id, path: path.into(), file, opened, alignment, buffered_because }))
    }

    /// A number that no other `SourceFile` of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where the file was when it was opened.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Its length in bytes when it was opened.
    #[expect(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
    pub fn len(&self) -> u64 {
        self.opened.len
    }

    /// Whether nobody wrote to the file since it was opened, as far as its length and its time of
    /// modification tell. One call of the system.
    ///
    /// # Errors
    /// [`ReadError::Changed`]; bytes that were read before this call may be of either version.
    pub fn check_unchanged(&self) -> Result<(), ReadError> {
        let now = match self.file.metadata() {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) => return Err(self.io_error(0, 0, error.raw_os_error().unwrap_or(0))),
        };
        if now == self.opened { Ok(()) } else { Err(self.changed(now.len)) }
    }

    /// Whether its path still leads to the file that is open, unchanged. A path that leads nowhere is no
    /// fault: the file is there as long as it is open.
    ///
    /// # Errors
    /// [`ReadError::Changed`]
    pub fn check_in_place(&self) -> Result<(), ReadError> {
        self.check_unchanged()?;
        match std::fs::metadata(&self.path) {
            Ok(metadata) if Stamp::of(&metadata) != self.opened => Err(self.changed(metadata.len())),
            _ => Ok(()),
        }
    }

    fn changed(&self, len_now: u64) -> ReadError {
        ReadError::Changed { path: self.path.clone(), len: self.opened.len, len_now }
    }

    /// Its length in bytes now.
    pub fn current_len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Bytes that the file system keeps on its device for this file; fewer than its length if it has holes.
    pub fn stored_bytes(&self) -> io::Result<u64> {
        // `st_blocks` counts units of 512 bytes, whatever the block size (stat(2)).
        Ok(self.file.metadata()?.blocks().saturating_mul(512))
    }

    /// Whether reads bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.buffered_because.is_none()
    }

    /// Why reads go through the page cache, if they do.
    pub fn buffered_because(&self) -> Option<&str> {
        self.buffered_because.as_deref()
    }

    /// The alignment that every request on this file must keep.
    pub fn alignment(&self) -> Alignment {
        self.alignment
    }

    /// One read call, which may return fewer bytes than asked for, and 0 at the end of the file.
    ///
    /// # Safety
    /// `to..to + len` must be valid for writes during the call.
    pub(crate) unsafe fn read_once(&self, to: NonNull<u8>, len: usize, offset: u64) -> io::Result<usize> {
        // SAFETY: passed on to the caller.
        unsafe { platform::pread(&self.file, to, len, offset) }
    }

    /// After a buffered read: lets the page cache forget the range, so that streaming does not push out what
    /// others cached. A direct file has nothing to forget.
    pub(crate) fn forget_cached(&self, offset: u64, len: usize) {
        if !self.is_direct() {
            platform::forget_cached(&self.file, offset, len);
        }
    }

    /// The error of a read at `offset` of `len` bytes of this file.
    pub(crate) fn io_error(&self, offset: u64, len: usize, errno: i32) -> ReadError {
        ReadError::Io { path: self.path.clone(), offset, len, errno }
    }
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for SourceFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

const BUFFERED: Alignment = Alignment { memory: 1, offset: 1 };

/// Opens for direct reads and tries one, because some file systems accept the flag and refuse the read.
fn open_direct(path: &Path, len: u64) -> Result<(File, Alignment), String> {
    let file = platform::open_direct(path).map_err(|error| format!("direct I/O was refused: {error}"))?;
    let page = Alignment { memory: PAGE, offset: PAGE };
    let alignment = match platform::direct_io(&file) {
        DirectIo::Unsupported => return Err("the file system has no direct I/O".to_owned()),
        DirectIo::Unknown => page,
        DirectIo::Aligned { memory, offset } => {
            let usable = |align: usize| align.is_power_of_two() && align <= PAGE;
            if !usable(memory) || !usable(offset) {
                return Err(format!(
                    "direct I/O needs an alignment of {memory}/{offset} bytes, more than a page"
                ));
            }
            Alignment { memory, offset }
        }
    };
    if len > 0 {
        let trial = Arena::new(PAGE, HugePages::No).map_err(|error| error.to_string())?;
        // SAFETY: `trial` holds PAGE bytes and lives until after the call.
        unsafe { platform::pread(&file, trial.base(), PAGE, 0) }
            .map_err(|error| format!("a direct read was refused: {error}"))?;
    }
    Ok((file, alignment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named() {
        let error = SourceFile::open("/nonexistent/model.gguf").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/model.gguf"), "{error}");
    }

    #[test]
    fn a_directory_is_refused() {
        let error = SourceFile::open(std::env::temp_dir()).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn tmpfs_is_buffered_and_says_why() {
        let file = match tempfile::NamedTempFile::new_in("/dev/shm") {
            Ok(file) => file,
            Err(error) => return crate::required::skip_without("tmpfs", error),
        };
        let opened = SourceFile::open(file.path()).unwrap();
        assert!(!opened.is_direct());
        assert!(opened.buffered_because().unwrap().contains("direct I/O"));
    }

    #[test]
    fn a_file_that_is_written_to_replaced_or_cut_is_changed_and_one_that_is_moved_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let older = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        let fresh = || {
            std::fs::write(&path, [1; 100]).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(older).unwrap();
            SourceFile::open(&path).unwrap()
        };
        let changed = |checked: Result<(), ReadError>, now: u64| {
            let path: Arc<Path> = path.as_path().into();
            assert_eq!(checked, Err(ReadError::Changed { path, len: 100, len_now: now }));
        };
        let (writes, cuts, replaced) = (fresh(), fresh(), fresh());
        assert_eq!((writes.check_unchanged(), writes.check_in_place()), (Ok(()), Ok(())));
        std::fs::write(&path, [2; 100]).unwrap();
        changed(writes.check_unchanged(), 100);
        changed(writes.check_in_place(), 100);
        File::options().write(true).open(&path).unwrap().set_len(99).unwrap();
        changed(cuts.check_unchanged(), 99);
        drop(replaced);
        let (moved, replaced) = (fresh(), fresh());
        std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        assert_eq!((moved.check_unchanged(), moved.check_in_place()), (Ok(()), Ok(())));
        std::fs::write(&path, [1; 10]).unwrap();
        assert_eq!(replaced.check_unchanged(), Ok(()), "what is open is as it was");
        changed(replaced.check_in_place(), 10);
    }

    #[test]
    fn asking_for_buffered_reads_gives_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let opened = SourceFile::open_as(file.path(), OpenMode::Buffered).unwrap();
        assert_eq!((opened.is_direct(), opened.alignment(), opened.len()), (false, BUFFERED, 0));
    }
}

//! Error types of the crate, one enum per family of operations. Each message names the thing, the cause and,
//! where there is one, the way out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an [`Arena`](crate::Arena) could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// Nothing was asked for.
    #[error("an arena of 0 bytes was asked for; ask for at least one byte")]
    Empty,
    /// The size does not fit the address space.
    #[error("an arena of {bytes} bytes does not fit the address space of this machine")]
    TooLarge {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The system refused the memory.
    #[error("the system refused {bytes} bytes of memory: {source}; ask for less (--memory)")]
    Refused {
        /// Bytes asked for.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {} for reading: {source}", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Why a read failed. It is `Clone`, because one failed read may fail several waiters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The file ended before the bytes that must be there.
    #[error(
        "{} ends early: only {got} of {len} bytes are there at offset {offset}; the file is truncated or still being written, fetch it again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: Arc<Path>,
        /// Where the request starts in the file, in bytes.
        offset: u64,
        /// The bytes that had to be there (the `required` of the request).
        len: usize,
        /// The bytes that are there.
        got: usize,
    },
    /// The file is not the one that was opened any more.
    #[error(
        "{} was changed while it was in use ({}): load the model again",
        path.display(),
        if len == len_now { "it was written to".to_owned() } else { format!("it had {len} bytes, and has {len_now}") }
    )]
    Changed {
        /// The file.
        path: Arc<Path>,
        /// Its length when it was opened, in bytes.
        len: u64,
        /// Its length now.
        len_now: u64,
    },
    /// The system reported an error.
    #[error(
        "cannot read {len} bytes at offset {offset} of {}: {}",
        path.display(),
        io::Error::from_raw_os_error(*errno)
    )]
    Io {
        /// The file.
        path: Arc<Path>,
        /// Where the request starts in the file, in bytes.
        offset: u64,
        /// Length of the request in bytes.
        len: usize,
        /// The error number of the system (positive).
        errno: i32,
    },
    /// The request itself is wrong; nothing was read.
    #[error("refused to read {len} bytes at offset {offset} of {}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: Arc<Path>,
        /// Where the request starts in the file, in bytes.
        offset: u64,
        /// Length of the request in bytes.
        len: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The reader's worker ended (a bug or a broken ring); reads that it still held cannot finish.
    #[error("the {reader} reader stopped ({reason}); open another reader, for instance with --reader pread")]
    Stopped {
        /// Name of the reader.
        reader: &'static str,
        /// What ended it.
        reason: String,
    },
    /// A scoped read needs a reader that has nothing else to deliver.
    #[error("the reader still has {in_flight} requests to deliver; wait for them before a scoped read")]
    Busy {
        /// Requests not delivered yet.
        in_flight: usize,
    },
    /// Staging memory for unaligned edges could not be had.
    #[error("no staging memory for unaligned reads: {reason}")]
    Staging {
        /// What the system said.
        reason: String,
    },
}

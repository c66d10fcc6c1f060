//! What goes into a reader and what comes out: plain data.

use std::sync::Arc;
use std::time::Duration;

use crate::{Arena, PAGE, ReadError, SourceFile};

/// How urgent a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Someone waits for it. Overtakes every prefetch that has not been started.
    Demand,
    /// A guess; it takes the device only while no demand read wants it.
    Prefetch,
}

/// One range of a file to read into an arena.
///
/// `offset`, `len` and the address of the destination must be multiples of the
/// [`Alignment`](crate::Alignment) of the file; multiples of [`PAGE`] always are.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Comes back in the completion; meaningless to the reader. Tags in flight should differ.
    pub tag: u64,
    /// The file.
    pub file: Arc<SourceFile>,
    /// Where to start in the file, in bytes.
    pub offset: u64,
    /// How many bytes to ask for.
    pub len: usize,
    /// How many of them must be there, at most `len`. What lies behind them is read if convenient and
    /// unspecified otherwise: it may be beyond the end of the file.
    pub required: usize,
    /// Memory to read into; kept until the completion.
    pub dst: Arc<Arena>,
    /// Where to start in `dst`, in bytes.
    pub dst_offset: usize,
    /// How urgent it is.
    pub priority: Priority,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The tag of the request.
    pub tag: u64,
    /// `Ok` when all required bytes are in the arena.
    pub result: Result<(), ReadError>,
}

/// Settings common to all readers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReaderConfig {
    /// Chunks at the device at the same time (1 to 4096). `pread` has as many as it has threads.
    pub depth: usize,
    /// Of these, how many may be prefetches; what is left is for demand reads to start at once.
    pub prefetch_depth: usize,
    /// Requests larger than this are split, in bytes; rounded up to a multiple of [`PAGE`].
    pub chunk_bytes: usize,
    /// Threads of the `pread` reader.
    pub threads: usize,
    /// Makes io_uring fail with this error number when it is opened, to test the way around it.
    pub simulate_uring_refusal: Option<i32>,
}

impl Default for ReaderConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl ReaderConfig {
    /// What readers do unless they are told otherwise.
    pub const DEFAULT: Self = Self {
        depth: 64,
        prefetch_depth: 16,
        chunk_bytes: 1 << 20,
        threads: 8,
        simulate_uring_refusal: None,
    };

    /// The same with every number in its range.
    pub(crate) fn in_range(&self) -> ReaderConfig {
        let depth = self.depth.clamp(1, 4096);
        ReaderConfig {
            depth,
            prefetch_depth: self.prefetch_depth.clamp(1, depth),
            chunk_bytes: self.chunk_bytes.clamp(PAGE, 1 << 30).next_multiple_of(PAGE),
            threads: self.threads.clamp(1, 256),
            simulate_uring_refusal: self.simulate_uring_refusal,
        }
    }
}

/// Counters since the reader was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReaderStats {
    /// Requests submitted.
    pub requests: u64,
    /// Requests delivered with `Ok`.
    pub completed: u64,
    /// Requests delivered with an error.
    pub failed: u64,
    /// Requests taken back before they started.
    pub cancelled: u64,
    /// Required bytes of the requests that completed with `Ok`.
    pub bytes: u64,
    /// Bytes that read calls returned, required or not.
    pub device_bytes: u64,
    /// Of `device_bytes`, those read as prefetches.
    pub prefetch_bytes: u64,
    /// Read calls (chunks and their continuations).
    pub device_reads: u64,
    /// Read calls that returned fewer bytes than asked for and were continued.
    pub short_reads: u64,
    /// Read calls repeated after EINTR or EAGAIN.
    pub retries: u64,
    /// Time during which at least one chunk was at the device (virtual time for `sim`). Io_uring sees the end
    /// of a chunk when its owner calls, so time between the calls counts until then.
    pub busy: Duration,
}

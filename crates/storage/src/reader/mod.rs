//! Readers: the [`Reader`] trait, its requests and completions, and the choice between implementations.
//!
//! | file | job |
//! |---|---|
//! | `chunk` | one read at the device, and what follows from what it returned |
//! | `schedule` | which chunk goes to the device next, and when a request is complete (pure, shared by all) |
//! | `hub` | the schedule behind a lock, between the owner of a reader and its worker threads |
//! | `pread` | worker threads that call `pread` (Linux and macOS) |
//! | `uring` | io_uring, driven by the calls of its owner (Linux) |
//! | `uring_ring` | the ring itself: slots, entries, completions |
//! | `uring_files` | files that the ring knows by number |
//! | `sim` | seeded latencies, disorder and faults on a virtual clock |
//! | `scoped` | blocking reads into borrowed memory, unaligned ranges allowed |

mod chunk;
mod hub;
mod open;
mod pread;
mod request;
mod schedule;
mod scoped;
mod sim;
#[cfg(target_os = "linux")]
mod uring;
#[cfg(target_os = "linux")]
mod uring_files;
#[cfg(target_os = "linux")]
mod uring_ring;

pub use hub::ThreadedReader;
pub use open::{OpenReaderError, OpenedReader, ReaderKind, open_reader};
pub use pread::open_pread;
pub use request::{Completion, Priority, ReadRequest, ReaderConfig, ReaderStats};
pub use scoped::{ScopedRead, read_scoped};
pub use sim::{Eio, Injected, Latency, SimConfig, SimReader, Stall};
#[cfg(target_os = "linux")]
pub use uring::{UringReader, open_uring};

use std::time::Duration;

/// Moves bytes from files into arenas, asynchronously.
///
/// Every submitted request is answered exactly once: by a [`Completion`], or by its tag in the answer of
/// [`cancel_queued`](Reader::cancel_queued) or [`quiesce`](Reader::quiesce). Requests complete in any order.
///
/// A reader gives up its `Arc` of a destination *before* it delivers the completion, and dropping a reader
/// waits until the kernel is done with every read that was started.
pub trait Reader: Send {
    /// Accepts requests. Never blocks on I/O: the queue inside is unlimited, only the depth at the device is
    /// not. A request that cannot be right (misaligned, outside its arena) completes with
    /// [`ReadError::Invalid`](crate::ReadError).
    fn submit(&mut self, requests: Vec<ReadRequest>);

    /// Appends the completions that are there, without waiting.
    fn poll(&mut self, out: &mut Vec<Completion>);

    /// Appends completions, sleeping until there is at least one, none can come because nothing is in flight,
    /// or about `patience` is over. A kernel without timed waits (Linux before 5.11) sleeps on.
    fn wait_for(&mut self, out: &mut Vec<Completion>, patience: Duration);

    /// Appends completions, sleeping until there is at least one, or none can come because nothing is in
    /// flight.
    fn wait(&mut self, out: &mut Vec<Completion>) {
        /// No disk takes longer, and every clock can count it.
        const LONG: Duration = Duration::from_secs(3600);
        let before = out.len();
        loop {
            self.wait_for(out, LONG);
            if out.len() > before || self.in_flight() == 0 {
                return;
            }
        }
    }

    /// Requests submitted and not yet answered.
    fn in_flight(&self) -> usize;

    /// Bytes asked for that the device has not delivered yet, chunk by chunk: how much work it still has.
    fn backlog_bytes(&self) -> usize;

    /// Takes back requests of which no chunk has been started, all of them or those with these tags, and
    /// returns the tags taken back. The others will complete.
    fn cancel_queued(&mut self, tags: Option<&[u64]>) -> Vec<u64>;

    /// Gives the waiting rest of these prefetches the priority of demand reads, without reading anything
    /// twice.
    fn promote(&mut self, tags: &[u64]);

    /// What was done since the reader was opened.
    fn stats(&self) -> ReaderStats;

    /// Name for people: `"uring"`, `"pread"` or `"sim"`.
    fn name(&self) -> &'static str;

    /// Appends all completions, sleeping until nothing is in flight.
    fn drain(&mut self, out: &mut Vec<Completion>) {
        while self.in_flight() > 0 {
            self.wait(out);
        }
    }

    /// Takes back all requests that were not started, waits for the others and returns the tags taken back.
    fn quiesce(&mut self, out: &mut Vec<Completion>) -> Vec<u64> {
        let cancelled = self.cancel_queued(None);
        self.drain(out);
        cancelled
    }
}

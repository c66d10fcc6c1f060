//! What every reader does: moves bytes from files into arenas, asynchronously.

use std::time::Duration;

use super::{Completion, ReadRequest, ReaderStats};

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

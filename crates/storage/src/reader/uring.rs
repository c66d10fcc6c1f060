//! The io_uring reader: no thread of its own. Its owner hands chunks to the kernel in `submit`, collects and
//! refills in `poll`, and sleeps in the kernel in `wait`, because each change of threads would cost more than
//! the system call (0.1 to 0.3 ms a wake-up on small virtual machines, several times a token). The other side
//! of the bargain: between two calls the disk works on what it has (64 chunks of 1 MiB by default) and gets
//! nothing new.
//!
//! Invariants: every chunk that the schedule counts at the device is in the ring; the reader does not end
//! while the ring has one; after an error of the ring itself nothing enters it any more. No SQPOLL: a polling
//! kernel thread costs a core that the machine needs for computing. No registered buffers: they were measured
//! (`benches/registered_buffers.rs`) and bring no bandwidth.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::request::{Completion, ReadRequest, ReaderConfig, ReaderStats};
use super::schedule::Schedule;
use super::uring_ring::Ring;
use super::{OpenReaderError, Reader};
use crate::ReadError;

const NAME: &str = "uring";

/// Opens a reader over io_uring. Fails where the kernel lacks it, a sandbox forbids it or memory limits
/// refuse it; [`open_reader`](super::open_reader) then falls back to `pread`.
pub fn open_uring(config: &ReaderConfig) -> Result<UringReader, OpenReaderError> {
    let config = config.in_range();
    let refused = |what| move |source| OpenReaderError::UringRefused { what, source };
    if let Some(errno) = config.simulate_uring_refusal {
        return Err(refused("simulated")(io::Error::from_raw_os_error(errno)));
    }
    let ring = Ring::open(config.depth).map_err(|(what, source)| refused(what)(source))?;
    Ok(UringReader { ring, schedule: Schedule::new(&config), stopped: None, opened: Instant::now() })
}

/// A reader over io_uring that works inside the calls of its owner; opened by [`open_uring`].
///
/// It may move between threads with reads in flight. The kernel ends a read in the thread that submitted it,
/// whenever that thread next enters the kernel (a tick of the clock is enough), so another thread may learn
/// of it a little later.
pub struct UringReader {
    ring: Ring,
    schedule: Schedule,
    /// Set once, when the ring broke.
    stopped: Option<ReadError>,
    opened: Instant,
}

impl UringReader {
    /// Takes in what has ended and hands out what may start, without sleeping.
    fn turn(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        let outcome =
            self.ring.run_deferred().and_then(|()| self.exchange()).and_then(|()| self.ring.flush());
        self.settle(outcome);
    }

    /// Between the schedule and the ring, without a system call: ended chunks back, new ones in.
    fn exchange(&mut self) -> io::Result<()> {
        self.ring.reap()?;
        let now = self.opened.elapsed();
        self.finish_over(now);
        while self.ring.start(|| self.schedule.next_chunk(now))? {}
        Ok(())
    }

    fn finish_over(&mut self, now: Duration) {
        while let Some((chunk, result)) = self.ring.next_over() {
            self.schedule.finish(chunk, result, now);
        }
    }

    /// After an error that does not pass: fails everything, but only when the kernel no longer writes.
    fn settle(&mut self, outcome: io::Result<()>) {
        let Err(cause) = outcome else { return };
        let error = ReadError::Stopped { reader: NAME, reason: format!("io_uring: {cause}") };
        self.stopped = Some(error.clone());
        self.finish_over(self.opened.elapsed());
        self.schedule.stop(&error);
        for chunk in self.ring.give_up() {
            self.schedule.finish(chunk, Err(error.clone()), self.opened.elapsed());
        }
    }

    /// Sleeps until the kernel is done with everything that was started.
    fn empty_ring(&mut self) {
        while !self.ring.is_idle() {
            let outcome = self.ring.sleep(None).and_then(|()| self.exchange());
            self.settle(outcome);
        }
    }
}

impl fmt::Debug for UringReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringReader").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl Reader for UringReader {
    fn submit(&mut self, requests: Vec<ReadRequest>) {
        if let Some(error) = &self.stopped {
            return requests.into_iter().for_each(|request| self.schedule.refuse(request, error));
        }
        for request in requests {
            self.schedule.submit(request);
        }
        self.turn();
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.turn();
        self.schedule.deliver(out);
    }

    fn wait_for(&mut self, out: &mut Vec<Completion>, patience: Duration) {
        self.turn();
        let start = Instant::now();
        let mut left = patience;
        while !self.schedule.has_done() && self.schedule.in_flight() > 0 && !left.is_zero() {
            let outcome = self.ring.sleep(Some(left)).and_then(|()| self.exchange());
            self.settle(outcome);
            left = patience.saturating_sub(start.elapsed());
        }
        // What took the place of the ended chunks is not left lying until the next call.
        let flushed = self.ring.flush();
        self.settle(flushed);
        self.schedule.deliver(out);
    }

    fn in_flight(&self) -> usize {
        self.schedule.in_flight()
    }

    fn backlog_bytes(&self) -> usize {
        self.schedule.backlog_bytes()
    }

    fn cancel_queued(&mut self, tags: Option<&[u64]>) -> Vec<u64> {
        self.schedule.cancel_queued(tags)
    }

    fn promote(&mut self, tags: &[u64]) {
        self.schedule.promote(tags);
        // Promoted chunks may start although the room for prefetches is full.
        self.turn();
    }

    fn stats(&self) -> ReaderStats {
        self.schedule.stats(self.opened.elapsed())
    }

    fn name(&self) -> &'static str {
        NAME
    }
}

impl Drop for UringReader {
    fn drop(&mut self) {
        self.schedule.abandon_queued();
        self.empty_ring();
    }
}

#[cfg(test)]
mod tests;

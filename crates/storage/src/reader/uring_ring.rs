//! [`Ring`]: an io_uring and the chunks that it reads. It owns both, pushes entries, enters the kernel and digests
//! completions; what to read next, and what a completion means to a request, is the business of `uring`.
//!
//! Invariants: a chunk stays in `slots`, and with it its arena and file, from before its SQE is pushed until
//! its CQE was seen; a ring that is forgotten leaks its chunks, and one that would be dropped before it is
//! idle ends the process.
//!
//! Kernel flags: COOP_TASKRUN, so that ended reads do not interrupt the computing thread, and TASKRUN_FLAG,
//! which shows in shared memory that there are some. Not SINGLE_ISSUER and DEFER_TASKRUN: they bind the ring
//! to one thread, and reads in flight of a thread that does not come back to the ring would never end for
//! another one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};

use super::chunk::{Chunk, Step};
use super::uring_files::FileTable;
use crate::ReadError;

/// How long to sleep when the kernel is short of resources for a moment.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Ring {
    ring: IoUring,
    files: FileTable,
    /// Chunks at the device, by `user_data`.
    slots: Vec<Option<Chunk>>,
    free: Vec<usize>,
    /// `user_data` of the SQEs that the kernel has not taken yet, in order.
    unsubmitted: Vec<usize>,
    /// Chunks that are over and not yet taken by `next_over`.
    over: VecDeque<(Chunk, Result<(), ReadError>)>,
    /// Nothing may enter the kernel any more: entries that it never took refer to chunks that are gone.
    given_up: bool,
}

impl Ring {
    /// A ring for `depth` chunks; the error comes with the step that failed.
    pub(super) fn open(depth: usize) -> Result<Ring, (&'static str, io::Error)> {
        let ring = build_ring(depth as u32).map_err(|error| ("io_uring_setup", error))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(|error| ("probe", error))?;
        if !probe.is_supported(opcode::Read::CODE) {
            return Err(("probe", io::Error::from_raw_os_error(libc::ENOSYS)));
        }
        let files = FileTable::register(&ring);
        Ok(Ring {
            ring,
            files,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            unsubmitted: Vec::new(),
            over: VecDeque::new(),
            given_up: false,
        })
    }

    /// Whether nothing is at the device.
    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Pushes the read of the next chunk, if there is a slot and a chunk for it, and says whether there was.
    /// The kernel takes it with the next [`flush`](Self::flush) or [`sleep`](Self::sleep).
    pub(super) fn start(&mut self, next: impl FnOnce() -> Option<Chunk>) -> io::Result<bool> {
        if self.free.is_empty() {
            return Ok(false);
        }
        let Some(chunk) = next() else { return Ok(false) };
        if self.is_idle() {
            self.files.forget_closed(&self.ring);
        }
        self.push(chunk).map(|()| true)
    }

    fn push(&mut self, chunk: Chunk) -> io::Result<()> {
        let entry = self.entry_of(&chunk);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(chunk);
        self.unsubmitted.push(slot);
        // SAFETY: the read writes to the arena and uses the file of the chunk in `slots[slot]`, which stays
        // there, and keeps both alive, until the CQE of this entry is reaped, or until `give_up` found that
        // the kernel never took it.
        unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) }
            .map_err(|_| io::Error::other("the submission queue is full"))
    }

    fn entry_of(&mut self, chunk: &Chunk) -> squeue::Entry {
        let len = u32::try_from(chunk.remaining()).unwrap_or(u32::MAX);
        let to = chunk.address().as_ptr();
        let offset = chunk.position();
        let entry = match self.files.index_of(&self.ring, chunk.file()) {
            Some(index) => opcode::Read::new(types::Fixed(index), to, len).offset(offset).build(),
            None => opcode::Read::new(types::Fd(chunk.file().as_raw_fd()), to, len).offset(offset).build(),
        };
        // A buffered read would copy out of the page cache inside our system call, and wait for each
        // read-ahead window with our help; workers of the kernel do both without us.
        let flags = if chunk.file().is_direct() { squeue::Flags::empty() } else { squeue::Flags::ASYNC };
        entry.flags(flags)
    }

    /// Lets reads that ended, and wait for a thread of ours to say so, put their completions into the queue.
    pub(super) fn run_deferred(&mut self) -> io::Result<()> {
        let queue = self.ring.submission();
        if queue.taskrun() || queue.cq_overflow() {
            drop(queue);
            self.enter(0, None)?;
        }
        Ok(())
    }

    /// Hands what was pushed to the kernel, without sleeping.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.unsubmitted.is_empty() { Ok(()) } else { self.enter(0, None).map(drop) }
    }

    /// Hands what was pushed to the kernel and sleeps there until there is a completion, a signal, or
    /// `patience` is over.
    pub(super) fn sleep(&mut self, patience: Option<Duration>) -> io::Result<()> {
        if self.enter(1, patience)? == Entered::NotNow {
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn enter(&mut self, want: usize, patience: Option<Duration>) -> io::Result<Entered> {
        if self.given_up {
            return Err(io::Error::other("the ring was given up"));
        }
        let outcome = match patience.filter(|_| self.ring.params().is_feature_ext_arg()) {
            Some(patience) => {
                let patience = types::Timespec::from(patience);
                self.ring.submitter().submit_with_args(want, &types::SubmitArgs::new().timespec(&patience))
            }
            None => self.ring.submit_and_wait(want),
        };
        let left = self.ring.submission().len();
        self.unsubmitted.drain(..self.unsubmitted.len().saturating_sub(left));
        match outcome {
            Ok(_) => Ok(Entered::Done),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME) => Ok(Entered::Done),
                // Short of kernel memory, or completions to be reaped first: both pass.
                Some(libc::EAGAIN | libc::EBUSY) => Ok(Entered::NotNow),
                _ => Err(error),
            },
        }
    }

    /// Digests the completions that are there; reads that were short are pushed again.
    pub(super) fn reap(&mut self) -> io::Result<()> {
        while let Some((slot, result)) = self.next_completion() {
            let outcome = usize::try_from(result).map_err(|_| error_of(result));
            let mut chunk = self.take(slot).ok_or_else(|| io::Error::other("a completion of nothing"))?;
            match chunk.advance(outcome) {
                Step::Again => self.push(chunk)?,
                Step::Over(result) => self.over.push_back((chunk, result)),
            }
        }
        Ok(())
    }

    fn next_completion(&mut self) -> Option<(usize, i32)> {
        self.ring.completion().next().map(|entry| (entry.user_data() as usize, entry.result()))
    }

    fn take(&mut self, slot: usize) -> Option<Chunk> {
        let chunk = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(chunk)
    }

    /// A chunk that is over, with its result.
    pub(super) fn next_over(&mut self) -> Option<(Chunk, Result<(), ReadError>)> {
        self.over.pop_front()
    }

    /// The ring is broken: returns what was at the device when the kernel no longer writes to it.
    pub(super) fn give_up(&mut self) -> Vec<Chunk> {
        self.given_up = true;
        let mut stranded = Vec::new();
        for slot in std::mem::take(&mut self.unsubmitted) {
            stranded.extend(self.take(slot));
        }
        loop {
            while let Some((slot, _)) = self.next_completion() {
                stranded.extend(self.take(slot));
            }
            if self.is_idle() {
                return stranded;
            }
            // Sleeping in the kernel also lets the reads of this thread end.
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.is_idle() {
            // Closing a ring does not stop its reads. Memory that they write to must not be freed, and its
            // owners must not believe that they may use it.
            eprintln!("hypura: the io_uring reader ended with reads at the device; aborting");
            std::process::abort();
        }
    }
}

#[derive(PartialEq, Eq)]
enum Entered {
    Done,
    /// The kernel had not the means; nothing is lost, and trying again later helps.
    NotNow,
}

/// The error of a negative completion, which is a negated error number.
fn error_of(result: i32) -> io::Error {
    io::Error::from_raw_os_error(match -result {
        // We cancel nothing: the thread that submitted the read ended before a worker of the kernel got to
        // it. It is interrupted, not failed.
        libc::ECANCELED => libc::EINTR,
        errno => errno,
    })
}

/// A ring whose completions do not interrupt the thread, where the kernel knows how (5.19), or a plain one.
fn build_ring(entries: u32) -> io::Result<IoUring> {
    match IoUring::builder().setup_coop_taskrun().setup_taskrun_flag().build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        outcome => outcome,
    }
}

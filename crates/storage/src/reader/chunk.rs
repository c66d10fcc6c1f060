//! [`Chunk`]: the part of a request that is one read at the device, continued until its required bytes are there. It
//! owns the `Arc`s of file and arena that keep both alive while the kernel works, and decides what follows a
//! read.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use super::request::{Priority, ReadRequest};
use crate::{Arena, ReadError, SourceFile};

/// EINTR and EAGAIN in a row, without a byte read, after which a read counts as failed.
const MAX_RETRIES: u64 = 1000;

/// A read at the device.
pub(super) struct Chunk {
    key: u64,
    file: Arc<SourceFile>,
    dst: Arc<Arena>,
    dst_offset: usize,
    request_offset: u64,
    request_required: usize,
    start: usize,
    len: usize,
    done: usize,
    priority: Priority,
    counts: Counts,
    retries_in_a_row: u64,
}

/// What the reads of a chunk did.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) bytes: u64,
    pub(super) reads: u64,
    pub(super) short_reads: u64,
    pub(super) retries: u64,
}

/// What follows a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read again from [`Chunk::position`]: the read was short or interrupted.
    Again,
    /// The chunk is over.
    Over(Result<(), ReadError>),
}

impl Chunk {
    pub(super) fn new(
        key: u64,
        request: &ReadRequest,
        start: usize,
        len: usize,
        priority: Priority,
    ) -> Chunk {
        Chunk {
            key,
            file: Arc::clone(&request.file),
            dst: Arc::clone(&request.dst),
            dst_offset: request.dst_offset + start,
            request_offset: request.offset,
            request_required: request.required,
            start,
            len,
            done: 0,
            priority,
            counts: Counts::default(),
            retries_in_a_row: 0,
        }
    }

    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// Offset of this chunk in its request, in bytes.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Length of this chunk in bytes, whatever of it is there.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn priority(&self) -> Priority {
        self.priority
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn file(&self) -> &Arc<SourceFile> {
        &self.file
    }

    pub(super) fn dst(&self) -> &Arena {
        &self.dst
    }

    /// Where the next read starts in the destination, in bytes.
    pub(super) fn dst_position(&self) -> usize {
        self.dst_offset + self.done
    }

    /// Where the next read starts in the file, in bytes.
    pub(super) fn position(&self) -> u64 {
        self.request_offset + (self.start + self.done) as u64
    }

    /// How long the next read is, in bytes; never 0.
    pub(super) fn remaining(&self) -> usize {
        self.len - self.done
    }

    /// The address that the next read writes to; valid for `remaining()` bytes as long as the chunk lives.
    pub(super) fn address(&self) -> NonNull<u8> {
        // SAFETY: the schedule checked that the whole request lies in the arena, and done <= len.
        unsafe { self.dst.base().add(self.dst_position()) }
    }

    /// One read call of at most `limit` bytes, on this thread.
    pub(super) fn read_once(&self, limit: usize) -> io::Result<usize> {
        // SAFETY: `address()` is valid for `remaining()` bytes while self lives, and the arena allows writes
        // from anyone at any time.
        unsafe { self.file.read_once(self.address(), self.remaining().min(limit), self.position()) }
    }

    /// The error of this chunk for an error number of the system.
    pub(super) fn io_error(&self, errno: i32) -> ReadError {
        self.file.io_error(self.request_offset, self.request_required, errno)
    }

    fn truncated(&self, got_here: usize) -> ReadError {
        ReadError::Truncated {
            path: self.file.path().clone(),
            offset: self.request_offset,
            len: self.request_required,
            got: self.start + got_here,
        }
    }

    /// Digests what a read call returned. Short reads are normal and continued. A direct read transfers whole
    /// blocks except at the end of the file, so one that does not even complete a block has found the end.
    pub(super) fn advance(&mut self, outcome: io::Result<usize>) -> Step {
        self.counts.reads += 1;
        let got = match outcome {
            Ok(got) => got.min(self.remaining()),
            Err(error) => return self.retry_or_fail(&error),
        };
        self.retries_in_a_row = 0;
        self.counts.bytes += got as u64;
        let required = (self.request_required - self.start).min(self.len);
        let reached = self.done + got;
        if reached >= required {
            self.file.forget_cached(self.request_offset + self.start as u64, self.len);
            return Step::Over(Ok(()));
        }
        let need = self.file.alignment();
        let block = need.offset.max(need.memory);
        let resume = reached - reached % block;
        if resume <= self.done {
            return Step::Over(Err(self.truncated(reached)));
        }
        self.done = resume;
        self.counts.short_reads += 1;
        Step::Again
    }

    fn retry_or_fail(&mut self, error: &io::Error) -> Step {
        let transient = matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock);
        if transient && self.retries_in_a_row < MAX_RETRIES {
            self.retries_in_a_row += 1;
            self.counts.retries += 1;
            return Step::Again;
        }
        Step::Over(Err(self.io_error(error.raw_os_error().unwrap_or(libc::EIO))))
    }
}

#[cfg(test)]
mod tests;

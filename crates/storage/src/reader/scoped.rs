//! [`read_scoped`]: blocking reads of arbitrary ranges into borrowed memory. Used to load resident weights.
//!
//! Whatever is aligned goes straight to its place; unaligned edges, and ranges too small or too crooked, go
//! through a staging arena. Invariant: the function does not return or unwind before the reader has given up
//! every borrowed range; should a reader break its promise, the process ends rather than let it write to
//! memory that was given back.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use super::{Completion, Priority, ReadRequest, Reader};
use crate::{Arena, HugePages, PAGE, ReadError, SourceFile};

/// One range of a file to read into borrowed memory. Nothing needs to be aligned.
#[derive(Clone, Debug)]
pub struct ScopedRead<'a> {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Where to start in the file, in bytes.
    pub offset: u64,
    /// Where to put the bytes; its length is the length of the range, all of which must be there.
    pub dst: &'a [AtomicU8],
}

/// Bytes that one staging slot holds.
const SLOT: usize = 512 << 10;
/// Staging slots: 8 MiB in all.
const SLOTS: usize = 16;
/// Ranges below this are not worth a direct middle with two staged edges.
const DIRECT_MIN: usize = 128 << 10;
/// Direct requests are cut to this size, so that progress is reported while a large tensor loads.
const DIRECT_MAX: usize = 16 << 20;
/// Requests handed to the reader at the same time.
const MAX_IN_FLIGHT: usize = 256;

/// Reads all ranges, many in parallel, and returns when every byte is there, or with the first error.
/// `progress` is called with the number of bytes that arrived since the last call.
///
/// The reader must be idle. It must drop its handle of a destination before it completes a request, as
/// [`Reader`] demands; otherwise the process aborts.
pub fn read_scoped(
    reader: &mut dyn Reader,
    reads: &[ScopedRead<'_>],
    progress: &mut dyn FnMut(u64),
) -> Result<(), ReadError> {
    let in_flight = reader.in_flight();
    if in_flight > 0 {
        return Err(ReadError::Busy { in_flight });
    }
    let mut load = Load::new(Settle { reader, borrowed: Vec::new() }, reads)?;
    let mut completions = Vec::new();
    loop {
        load.submit();
        if load.underway.is_empty() {
            return Ok(());
        }
        load.settle.reader.wait(&mut completions);
        for completion in completions.drain(..) {
            progress(load.complete(completion)?);
        }
    }
}

/// Part of a scoped read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Index of the read.
    read: usize,
    /// Start in the read, in bytes.
    start: usize,
    len: usize,
    staged: bool,
}

struct Load<'r, 's> {
    /// First field: dropped, and with it everything at the device awaited, before the rest.
    settle: Settle<'r>,
    reads: &'s [ScopedRead<'s>],
    /// The destination of each read, as an arena that readers understand.
    waiting: VecDeque<Piece>,
    /// Pieces at the reader, by tag, with their staging slot.
    underway: std::collections::HashMap<u64, (Piece, Option<usize>)>,
    next_tag: u64,
    staging: Option<Arc<Arena>>,
    free_slots: Vec<usize>,
}

impl<'r, 's> Load<'r, 's> {
    fn new(mut settle: Settle<'r>, reads: &'s [ScopedRead<'s>]) -> Result<Self, ReadError> {
        let mut waiting = VecDeque::new();
        for (index, read) in reads.iter().enumerate() {
            cut(index, read, &mut waiting);
            let base = NonNull::from(read.dst).cast::<u8>();
            // SAFETY: `reads` borrows the memory until `read_scoped` is over, and `Settle` does not let that
            // happen before this arena is gone. Cells of atomics may be written through a shared borrow.
            settle.borrowed.push(unsafe { Arena::borrowed(base, read.dst.len()) });
        }
        let staging = if waiting.iter().any(|piece| piece.staged) {
            let arena = Arena::new(SLOT * SLOTS, HugePages::No);
            Some(arena.map_err(|error| ReadError::Staging { reason: error.to_string() })?)
        } else {
            None
        };
        Ok(Load {
            settle,
            reads,
            waiting,
            underway: std::collections::HashMap::new(),
            next_tag: 0,
            staging,
            free_slots: (0..SLOTS).collect(),
        })
    }

    /// Hands pieces to the reader while there is room.
    fn submit(&mut self) {
        let mut requests = Vec::new();
        while self.underway.len() < MAX_IN_FLIGHT
            && let Some(&piece) = self.waiting.front()
        {
            let slot = if piece.staged {
                let Some(slot) = self.free_slots.pop() else { break };
                Some(slot)
            } else {
                None
            };
            self.waiting.pop_front();
            requests.push(self.request(piece, slot));
            self.underway.insert(self.next_tag, (piece, slot));
            self.next_tag += 1;
        }
        self.settle.reader.submit(requests);
    }

    fn request(&self, piece: Piece, slot: Option<usize>) -> ReadRequest {
        let read = &self.reads[piece.read];
        let offset = read.offset + piece.start as u64;
        let (lead, len, dst, dst_offset) = match (slot, &self.staging) {
            (Some(slot), Some(staging)) => {
                let window = Window::around(offset, piece.len, read.file.alignment().offset);
                (window.lead, window.len, staging, slot * SLOT)
            }
            _ => (0, piece.len, &self.settle.borrowed[piece.read], piece.start),
        };
        ReadRequest {
            tag: self.next_tag,
            file: Arc::clone(&read.file),
            offset: offset - lead as u64,
            len,
            required: lead + piece.len,
            dst: Arc::clone(dst),
            dst_offset,
            priority: Priority::Demand,
        }
    }

    /// Puts staged bytes in their place; returns how many bytes are now there.
    fn complete(&mut self, completion: Completion) -> Result<u64, ReadError> {
        let Some((piece, slot)) = self.underway.remove(&completion.tag) else { return Ok(0) };
        completion.result?;
        if let (Some(slot), Some(staging)) = (slot, &self.staging) {
            let read = &self.reads[piece.read];
            let lead =
                Window::around(read.offset + piece.start as u64, piece.len, read.file.alignment().offset)
                    .lead;
            let to = &self.settle.borrowed[piece.read];
            staging.copy_to(slot * SLOT + lead, to, piece.start, piece.len);
            self.free_slots.push(slot);
        }
        Ok(piece.len as u64)
    }
}

/// A range rounded out to an alignment.
struct Window {
    /// Bytes before the range.
    lead: usize,
    len: usize,
}

impl Window {
    fn around(offset: u64, len: usize, align: usize) -> Window {
        let lead = (offset % align as u64) as usize;
        Window { lead, len: (lead + len).next_multiple_of(align) }
    }
}

/// Cuts a read into pieces that are aligned, or small enough for a staging slot.
fn cut(index: usize, read: &ScopedRead<'_>, pieces: &mut VecDeque<Piece>) {
    let need = read.file.alignment();
    let len = read.dst.len();
    let head = (read.offset.next_multiple_of(need.offset as u64) - read.offset) as usize;
    let middle = len.saturating_sub(head) / need.offset * need.offset;
    let address = read.dst.as_ptr() as usize + head;
    let direct = middle >= DIRECT_MIN.min(len) && middle > 0 && address.is_multiple_of(need.memory);
    if direct {
        cut_into(index, 0, head, true, pieces);
        cut_into(index, head, middle, false, pieces);
        cut_into(index, head + middle, len - head - middle, true, pieces);
    } else {
        cut_into(index, 0, len, true, pieces);
    }
}

fn cut_into(read: usize, mut start: usize, mut len: usize, staged: bool, pieces: &mut VecDeque<Piece>) {
    // A staged window may begin and end almost a page outside its piece.
    let most = if staged { SLOT - 2 * PAGE } else { DIRECT_MAX };
    while len > 0 {
        let part = len.min(most);
        pieces.push_back(Piece { read, start, len: part, staged });
        start += part;
        len -= part;
    }
}

/// Waits, when dropped, until the reader holds no borrowed memory any more.
struct Settle<'r> {
    reader: &'r mut dyn Reader,
    borrowed: Vec<Arc<Arena>>,
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        let bomb = AbortOnDrop;
        self.reader.quiesce(&mut Vec::new());
        let settled = self.borrowed.iter_mut().all(|arena| Arc::get_mut(arena).is_some());
        if settled {
            std::mem::forget(bomb);
        }
    }
}

/// Ends the process when dropped: by a reader that panics while it is waited for, or that keeps borrowed
/// memory.
struct AbortOnDrop;

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        eprintln!("hypura: a reader kept memory that was lent to it for a scoped read; aborting");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests;

//! [`Arena`]: the one allocation of this crate. It owns page-aligned anonymous memory that three parties share: the
//! engine (which plans), the readers (which write) and ggml (which reads).
//!
//! Invariants: the memory never moves, is zero until written, and is unmapped only when the last `Arc` is
//! gone. It is handed out as `&[AtomicU8]`, never as `&[u8]`, because the kernel may write to it at any time;
//! which bytes are *meaningful* is for the waiter of completions to know.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use crate::error::ArenaError;
use crate::{PAGE, platform};

/// Size and alignment of a huge page on x86-64 and on arm64 with 4 KiB pages.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Whether an arena asks for huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Ordinary pages.
    #[default]
    No,
    /// Ask for transparent huge pages where the system has them (Linux) and the arena holds at least one; the
    /// system may decline, which is no error.
    Try,
}

/// Page-aligned memory, shared by `Arc`, freed on drop.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    len: usize,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    /// A mapping of our own, unmapped on drop.
    Mapped { start: NonNull<u8>, len: usize },
    /// Memory of someone who waits until this arena is gone (see `reader::scoped`).
    Borrowed,
}

// SAFETY: the arena owns its memory (or borrows it under the contract of `Arena::borrowed`); a pointer to it
// may be moved to and used from any thread, and every access from safe code goes through atomics or an opaque
// memmove.
unsafe impl Send for Arena {}
// SAFETY: as above; no method hands out a non-atomic reference into the memory.
unsafe impl Sync for Arena {}

impl Arena {
    /// Allocates at least `bytes` bytes, rounded up to a multiple of [`PAGE`]. Arenas that ask for huge pages
    /// and hold at least one are aligned to 2 MiB. Pages are taken from the system when first written.
    pub fn new(bytes: usize, huge: HugePages) -> Result<Arc<Arena>, ArenaError> {
        if bytes == 0 {
            return Err(ArenaError::Empty);
        }
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { PAGE };
        let len = bytes.checked_next_multiple_of(PAGE).ok_or(ArenaError::TooLarge { bytes })?;
        let spare = if align > PAGE { align } else { 0 };
        let mapped = len
            .checked_add(spare)
            .filter(|&total| isize::try_from(total).is_ok())
            .ok_or(ArenaError::TooLarge { bytes })?;
        let start =
            platform::map_anonymous(mapped).map_err(|source| ArenaError::Refused { bytes, source })?;
        let skip = start.as_ptr().align_offset(align);
        // SAFETY: `skip < align`, and the mapping is `align` bytes longer than `len` whenever align > PAGE
        // (mappings are page-aligned, so skip is 0 otherwise): the result points into the mapping with `len`
        // bytes behind it.
        let base = unsafe { start.add(skip) };
        if huge == HugePages::Try && len >= HUGE_PAGE {
            platform::advise_huge_pages(base, len);
        }
        Ok(Arc::new(Arena { base, len, backing: Backing::Mapped { start, len: mapped } }))
    }

    /// Has the system back the arena with pages now: the first touch of memory can cost as much as reading
    /// from a fast disk, and reads into it would wait for that. Ends early where the system cannot do it.
    pub fn populate(&self) {
        let mut at = 0;
        while self.populate_range(at..at + HUGE_PAGE) {
            at += HUGE_PAGE;
        }
    }

    /// The same of the whole pages that a range touches. False of a range beyond the end, and when the system
    /// will not.
    pub(crate) fn populate_range(&self, range: Range<usize>) -> bool {
        let start = range.start / PAGE * PAGE;
        let len = range.end.next_multiple_of(PAGE).min(self.len).saturating_sub(start);
        // SAFETY: `start` is inside the arena when `len` is not 0, and is not used otherwise.
        len > 0 && platform::populate(unsafe { self.base.add(start) }, len)
    }

    /// Gives the whole pages of a range back to the system. What was in them is lost: a later write gets new
    /// pages, and a read before that gets zeros or what was there.
    pub fn discard(&self, range: Range<usize>) {
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end.min(self.len) / PAGE * PAGE);
        if start < end && matches!(self.backing, Backing::Mapped { .. }) {
            // SAFETY: start < len.
            platform::discard(unsafe { self.base.add(start) }, end - start);
        }
    }

    /// An arena over memory of someone else, so that readers can write to it.
    ///
    /// # Safety
    /// `base..base + len` must stay valid for reads and writes until the returned `Arc` and all its clones
    /// are gone.
    pub(crate) unsafe fn borrowed(base: NonNull<u8>, len: usize) -> Arc<Arena> {
        Arc::new(Arena { base, len, backing: Backing::Borrowed })
    }

    /// Size in bytes, a multiple of [`PAGE`] for allocated arenas.
    #[expect(clippy::len_without_is_empty, reason = "an arena is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The memory. `AtomicU8` is what lets crates without unsafe code pass it around while the kernel writes
    /// to it.
    pub fn cells(&self) -> &[AtomicU8] {
        // SAFETY: base..base+len is valid for as long as self; AtomicU8 has the layout of u8, any byte is a
        // valid value, and it allows the memory to change behind a shared reference.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast::<AtomicU8>(), self.len) }
    }

    /// The address of byte 0, for C code and system calls.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Copies `out.len()` bytes, starting at byte `at`, out of the arena. Bytes that a read is writing at the
    /// same time come out old or new; wait for the completion first.
    ///
    /// # Panics
    /// If the range is not inside the arena.
    pub fn copy_out(&self, at: usize, out: &mut [u8]) {
        self.check(at, out.len());
        // SAFETY: the source range was checked; `out` is exclusively ours, so the two cannot overlap (no
        // `&mut [u8]` into an arena is ever handed out).
        unsafe { opaque_move(self.base.as_ptr().add(at), out.as_mut_ptr(), out.len()) }
    }

    /// Copies `bytes` into the arena, starting at byte `at`.
    ///
    /// # Panics
    /// If the range is not inside the arena.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        // SAFETY: the destination range was checked; no reference other than to atomics covers it.
        unsafe { opaque_move(bytes.as_ptr(), self.base.as_ptr().add(at), bytes.len()) }
    }

    /// Moves `len` bytes from offset `from` to offset `to`; the ranges may overlap. Used to re-align a slice
    /// after its read.
    ///
    /// # Panics
    /// If a range is not inside the arena.
    pub fn copy_within(&self, from: usize, to: usize, len: usize) {
        self.check(from, len);
        self.check(to, len);
        // SAFETY: both ranges were checked and memmove allows overlap.
        unsafe { opaque_move(self.base.as_ptr().add(from), self.base.as_ptr().add(to), len) }
    }

    /// Copies `len` bytes from offset `from` of this arena to offset `at` of another (or the same) one.
    ///
    /// # Panics
    /// If a range is not inside its arena.
    pub fn copy_to(&self, from: usize, to: &Arena, at: usize, len: usize) {
        self.check(from, len);
        to.check(at, len);
        // SAFETY: both ranges were checked and memmove allows overlap.
        unsafe { opaque_move(self.base.as_ptr().add(from), to.base.as_ptr().add(at), len) }
    }

    /// Sets every byte of `range` to `byte`, to clear memory or to poison it in tests.
    ///
    /// # Panics
    /// If the range is not inside the arena.
    pub fn fill(&self, range: Range<usize>, byte: u8) {
        let len = range.end.saturating_sub(range.start);
        self.check(range.start, len);
        // SAFETY: the range was checked; memset through libc is opaque, as in `opaque_move`.
        unsafe {
            libc::memset(self.base.as_ptr().add(range.start).cast(), i32::from(byte), len);
        }
    }

    fn check(&self, at: usize, len: usize) {
        assert!(
            at <= self.len && len <= self.len - at,
            "range of {len} bytes at {at} is outside an arena of {} bytes",
            self.len
        );
    }
}

/// Copies bytes in C, so that the compiler knows nothing about them: a kernel that writes the same bytes
/// meanwhile can mix old and new ones, which is all that can happen, because they are never seen as anything
/// but bytes.
///
/// # Safety
/// Both ranges must be valid for `len` bytes.
unsafe fn opaque_move(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: passed on to the caller.
    unsafe {
        libc::memmove(to.cast(), from.cast(), len);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Backing::Mapped { start, len } = self.backing {
            // SAFETY: start..start+len is exactly the mapping made in `new`; being dropped, no reference to
            // it is left, and readers keep an `Arc` for as long as the kernel may write.
            let outcome = unsafe { platform::unmap(start, len) };
            debug_assert!(outcome.is_ok(), "munmap of an arena: {outcome:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn arenas_are_zero_aligned_and_rounded_to_pages() {
        for bytes in [1, PAGE, PAGE + 1, HUGE_PAGE - 1, HUGE_PAGE, 3 * HUGE_PAGE + 5] {
            let arena = Arena::new(bytes, HugePages::Try).unwrap();
            let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { PAGE };
            assert_eq!(arena.base().as_ptr() as usize % align, 0, "{bytes}");
            assert_eq!(arena.len(), bytes.next_multiple_of(PAGE));
            assert_eq!(arena.cells().len(), arena.len());
            assert!(arena.cells().iter().all(|cell| cell.load(Relaxed) == 0));
            arena.cells().last().unwrap().store(7, Relaxed);
        }
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert!(matches!(Arena::new(0, HugePages::No), Err(ArenaError::Empty)));
        assert!(matches!(Arena::new(usize::MAX, HugePages::No), Err(ArenaError::TooLarge { .. })));
        assert!(matches!(Arena::new(isize::MAX as usize, HugePages::Try), Err(ArenaError::TooLarge { .. })));
        assert!(matches!(Arena::new(1 << 60, HugePages::No), Err(ArenaError::Refused { .. })));
    }

    #[test]
    fn copies_move_the_right_bytes() {
        let arena = Arena::new(PAGE, HugePages::No).unwrap();
        arena.copy_in(10, &[1, 2, 3, 4, 5]);
        arena.copy_within(10, 12, 5);
        let mut out = [0; 8];
        arena.copy_out(10, &mut out);
        assert_eq!(out, [1, 2, 1, 2, 3, 4, 5, 0]);
        arena.fill(11..13, 0xEE);
        arena.copy_out(10, &mut out);
        assert_eq!(out, [1, 0xEE, 0xEE, 2, 3, 4, 5, 0]);
    }

    #[test]
    #[should_panic(expected = "outside an arena")]
    fn copying_past_the_end_panics() {
        Arena::new(PAGE, HugePages::No).unwrap().copy_within(0, 1, PAGE);
    }
}

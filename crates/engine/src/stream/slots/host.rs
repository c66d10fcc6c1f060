//! Slots in the host's memory: a read lands where it is computed with.
//!
//! The parts of a slot lie together, or each in a bank of its own for a device that computes with them there
//! (`core::plan::banks`). Reads land at the first whole page of a part's room; where that is not its place,
//! the slice is moved.

use hypura_core::plan::{Bank, ClassLayout, PartLayout, PartRead};
use hypura_ggml::SlotBinding;
use hypura_storage::{Arena, PAGE};
use std::ops::Range;
use std::sync::Arc;

use super::POISON;

/// A region of an arena with the slots of a class.
pub(crate) struct HostSlots {
    memory: Arc<Arena>,
    base: usize,
    slot_bytes: usize,
    /// Of each part, where they lie apart.
    banks: Vec<Bank>,
    /// Distances between banks are for so many slots: those that there were at first.
    slots: usize,
}

impl HostSlots {
    /// `slots` slots of a class from `base` on.
    pub fn new(memory: Arc<Arena>, base: usize, class: &ClassLayout, slots: usize) -> Self {
        Self { memory, base, slot_bytes: class.slot_bytes, banks: class.banks.clone(), slots }
    }

    /// Where the room of a part begins.
    fn start(&self, slot: usize, at: usize, stride: usize) -> usize {
        let copies = if self.banks.is_empty() { 1 } else { self.slots };
        self.base + at * copies + slot * stride
    }

    /// Where the slices of some slots are, those of each bank by themselves.
    fn rooms(&self, slots: Range<usize>) -> Vec<Range<usize>> {
        if self.banks.is_empty() {
            let start = |slot| self.start(slot, 0, self.slot_bytes);
            return std::iter::once(start(slots.start)..start(slots.end)).collect();
        }
        let room = |bank: &Bank| {
            let start = |slot| self.start(slot, bank.at, bank.stride);
            start(slots.start)..start(slots.end)
        };
        self.banks.iter().map(room).collect()
    }

    /// Whole pages with the first `slots` slots of each bank.
    pub fn banks(&self, slots: usize) -> Vec<Range<usize>> {
        let whole = |room: Range<usize>| room.start..room.end.next_multiple_of(PAGE).min(self.memory.len());
        self.rooms(0..slots).into_iter().map(whole).collect()
    }

    /// The first `bytes` bytes of the region.
    pub fn region(&self, bytes: usize) -> Range<usize> {
        self.base..self.base + bytes
    }

    /// Whether the parts of a slot lie together.
    pub fn slots_are_whole(&self) -> bool {
        self.banks.is_empty()
    }

    /// What reads land in.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.memory
    }

    /// Where the read of a part of a slot lands.
    pub fn destination(&self, slot: usize, layout: &PartLayout) -> usize {
        self.start(slot, layout.at, layout.stride).next_multiple_of(PAGE)
    }

    /// Overwrites a slot, of which nothing is of use any more.
    pub fn poison(&self, slot: usize) {
        for room in self.rooms(slot..slot + 1) {
            self.memory.fill(room, POISON);
        }
    }

    /// A part was read: moves it to its place where it did not land there.
    pub fn landed(&self, slot: usize, layout: &PartLayout, read: PartRead) {
        let Some(from) = read.move_from else { return };
        let (landed, place) = (self.destination(slot, layout) + from, self.slice(slot, layout).start);
        if landed != place {
            self.memory.copy_within(landed, place, layout.slice_bytes);
        }
    }

    /// The first `slots` slots as kernels see one part of them; `None` without slots.
    pub fn binding(&self, slots: usize, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        let start = self.slice(0, layout).start;
        let end = self.slice(slots.checked_sub(1)?, layout).end;
        let memory = self.memory.cells().get(start..end)?;
        Some(SlotBinding { memory: memory.into(), stride: layout.stride, slots })
    }

    /// The bytes of one part of one slot.
    pub fn slice(&self, slot: usize, layout: &PartLayout) -> Range<usize> {
        let start = self.start(slot, layout.at, layout.stride) + layout.shift.unwrap_or(0);
        start..start + layout.slice_bytes
    }

    /// Gives the memory of some slots, the last ones, back to the system.
    pub fn discard(&self, slots: Range<usize>) {
        for room in self.rooms(slots) {
            self.memory.discard(room);
        }
    }
}

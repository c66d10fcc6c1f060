//! Slots in the host's memory: a read lands where it is computed with.

use hypura_core::plan::{PartLayout, PartRead};
use hypura_ggml::SlotBinding;
use hypura_storage::Arena;
use std::ops::Range;
use std::sync::Arc;

use super::POISON;

/// A region of an arena, slot after slot.
pub(crate) struct HostSlots {
    memory: Arc<Arena>,
    base: usize,
    slot_bytes: usize,
}

impl HostSlots {
    /// Slots of `slot_bytes` from `base` on.
    pub fn new(memory: Arc<Arena>, base: usize, slot_bytes: usize) -> Self {
        Self { memory, base, slot_bytes }
    }

    fn start(&self, slot: usize) -> usize {
        self.base + slot * self.slot_bytes
    }

    /// What reads land in.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.memory
    }

    /// Where the read of a part of a slot lands.
    pub fn destination(&self, slot: usize, layout: &PartLayout) -> usize {
        self.start(slot) + layout.at
    }

    /// Overwrites a slot, of which nothing is of use any more.
    pub fn poison(&self, slot: usize) {
        self.memory.fill(self.start(slot)..self.start(slot + 1), POISON);
    }

    /// A part was read: moves it to its place where it did not land there.
    pub fn landed(&self, slot: usize, layout: &PartLayout, read: PartRead) {
        if let Some(from) = read.move_from {
            let room = self.destination(slot, layout);
            self.memory.copy_within(room + from, room, layout.slice_bytes);
        }
    }

    /// The first `slots` slots as kernels see one part of them; `None` without slots.
    pub fn binding(&self, slots: usize, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        let start = self.base + layout.data_at();
        let end = start + slots.checked_sub(1)? * self.slot_bytes + layout.slice_bytes;
        let memory = self.memory.cells().get(start..end)?;
        Some(SlotBinding { memory: memory.into(), stride: self.slot_bytes, slots })
    }

    /// The bytes of one part of one slot.
    pub fn slice(&self, slot: usize, layout: &PartLayout) -> Range<usize> {
        let start = self.start(slot) + layout.data_at();
        start..start + layout.slice_bytes
    }

    /// Gives the memory of some slots back to the system.
    pub fn discard(&self, slots: Range<usize>) {
        self.memory.discard(self.start(slots.start)..self.start(slots.end));
    }
}

//! Slots in the host's memory: a read lands where it is computed with.

use hypura_core::plan::{PartLayout, PartRead};
use hypura_ggml::{ExecError, GraphRun, SlotBinding};
use hypura_storage::Arena;
use std::ops::Range;
use std::sync::Arc;

use super::{POISON, SlotMemory};

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
}

impl SlotMemory for HostSlots {
    fn arena(&self) -> &Arc<Arena> {
        &self.memory
    }

    fn destination(&self, slot: usize, layout: &PartLayout) -> usize {
        self.start(slot) + layout.at
    }

    fn prepare(&self, slot: usize, poison: bool) {
        if poison {
            self.memory.fill(self.start(slot)..self.start(slot + 1), POISON);
        }
    }

    fn landed(&self, slot: usize, _: usize, layout: &PartLayout, read: PartRead) -> Result<(), ExecError> {
        if let Some(from) = read.move_from {
            let room = self.destination(slot, layout);
            self.memory.copy_within(room + from, room, layout.slice_bytes);
        }
        Ok(())
    }

    fn usable(&self, _: usize, _: usize) -> bool {
        true
    }

    fn fence(&self, _: &mut GraphRun<'_>) {}

    fn binding(&self, slots: usize, _: usize, layout: &PartLayout) -> Option<SlotBinding<'_>> {
        let start = self.base + layout.data_at();
        let end = start + slots.checked_sub(1)? * self.slot_bytes + layout.slice_bytes;
        let memory = self.memory.cells().get(start..end)?;
        Some(SlotBinding { memory: memory.into(), stride: self.slot_bytes, slots })
    }

    fn host_slice(&self, slot: usize, layout: &PartLayout) -> Range<usize> {
        let start = self.start(slot) + layout.data_at();
        start..start + layout.slice_bytes
    }

    fn discard(&self, slots: Range<usize>) {
        self.memory.discard(self.start(slots.start)..self.start(slots.end));
    }
}

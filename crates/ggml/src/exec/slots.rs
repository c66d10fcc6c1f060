//! Slots in memory, as nodes are bound to them.

use crate::memory::Bytes;

/// Slots in memory: slot `i` holds the slice of some expert at `i * stride`.
#[derive(Clone, Copy, Debug)]
pub struct SlotBinding<'a> {
    /// From the slice in slot 0 to the end of the slice in the last slot.
    pub memory: Bytes<'a>,
    /// Bytes from one slot to the next.
    pub stride: usize,
    /// Number of slots.
    pub slots: usize,
}

impl<'a> SlotBinding<'a> {
    /// The slots `lowest..=highest`; `None` where they do not exist.
    pub(super) fn window(self, lowest: usize, highest: usize) -> Option<Self> {
        let memory = self.memory.get(lowest.checked_mul(self.stride)?..self.memory.len())?;
        Some(Self { memory, slots: (highest + 1).checked_sub(lowest)?, ..self })
    }

    /// Whether `slots` slices of `slice` bytes fit.
    pub(super) fn holds(&self, slice: usize) -> bool {
        self.slots
            .checked_sub(1)
            .and_then(|last| last.checked_mul(self.stride)?.checked_add(slice))
            .is_some_and(|reach| reach <= self.memory.len())
    }
}

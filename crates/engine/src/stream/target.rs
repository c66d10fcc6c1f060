//! What a read of experts is for, and the errors of those who ask for what is not there.

use hypura_core::cache::SlotId;
use hypura_ggml::ExecError;

/// What a read is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// A part of an expert in a slot.
    Slot { layer: usize, expert: u32, slot: SlotId, part: usize },
    /// A slice in a throwaway cell, which begins at `shift`.
    Cell { cell: usize, shift: usize },
}

/// Experts were placed in a pool that has no memory.
pub(super) fn no_slots() -> ExecError {
    ExecError::Misuse("a pool without slots".to_owned())
}

/// A node of experts came before its layer began, or after it ended.
pub(super) fn no_layer() -> ExecError {
    ExecError::Misuse("a node of experts outside of its layer".to_owned())
}

//! Whole nodes with their weight elsewhere: a `MUL_MAT_ID` over all slots of a pool, a `MUL_MAT` over a
//! ring's cell.
//!
//! The two forms that work on any device: nothing but ids is read or written here, and those by copies where
//! they are not host memory.

use crate::error::ExecError;
use crate::memory::Bytes;

use super::bind::{bind, bind_slots, remapped_ids};
use super::graph::{StreamedKind, StreamedOp};
use super::operand::in_range;
use super::run::GraphRun;
use super::slots::SlotBinding;

impl GraphRun<'_> {
    /// Runs a whole `MUL_MAT_ID` over the slots of a pool; `slots` replaces
    /// [`MoeIds::experts`](super::MoeIds::experts), entry by entry (−1 stays −1).
    ///
    /// # Errors
    /// [`ExecError::Misuse`] on sizes or slots out of range or memory of another device,
    /// [`ExecError::Backend`] when the backend fails.
    pub fn run_bound(
        &mut self,
        op: StreamedOp,
        binding: SlotBinding<'_>,
        slots: &[i32],
    ) -> Result<(), ExecError> {
        let (used, tokens) = self.graph().ids_shape(op)?;
        if !binding.holds(self.graph().slice_bytes(op)) {
            return Err(ExecError::Misuse(format!("a pool of {} bytes is too short", binding.memory.len())));
        }
        if slots.iter().any(|slot| *slot != -1 && !in_range(*slot, binding.slots)) {
            return Err(ExecError::Misuse("a slot number is out of range".to_owned()));
        }
        if slots.len() != used * tokens {
            return Err(ExecError::Misuse(format!("{} slots for {used}×{tokens} ids", slots.len())));
        }
        let node = self.graph().node(op.node);
        // SAFETY: node and operands are alive; lengths were checked above, so the substituted tensors
        // describe memory that exists for this call. The operands are put back before anyone else can look: a
        // backend has taken down what it was given when it returns, and the stand-ins stay until it is waited
        // for.
        unsafe {
            let (weight, ids) = ((*node).src[0], (*node).src[2]);
            let bound = bind_slots(self, weight, binding)?;
            let mut remapped = remapped_ids(self, ids, slots)?;
            remapped.nb = [4, 4 * used, 4 * used * tokens, 4 * used * tokens];
            (*node).src[0] = self.scratch.stand_in(bound);
            (*node).src[2] = self.scratch.stand_in(remapped);
            let outcome = self.run(op.node..op.node + 1);
            (*node).src[0] = weight;
            (*node).src[2] = ids;
            self.end_call();
            outcome
        }
    }

    /// Runs a `MUL_MAT` with its weight in other memory.
    ///
    /// # Errors
    /// As [`Self::run_bound`].
    pub fn run_dense(&mut self, op: StreamedOp, weight: Bytes<'_>) -> Result<(), ExecError> {
        if op.kind != StreamedKind::Dense || self.graph().slice_bytes(op) > weight.len() {
            return Err(ExecError::Misuse(format!(
                "{} bytes are too short for node {}",
                weight.len(),
                op.node
            )));
        }
        let node = self.graph().node(op.node);
        // SAFETY: as in `run_bound`; the length was checked.
        unsafe {
            let original = (*node).src[0];
            let bound = bind(self, original, weight)?;
            (*node).src[0] = self.scratch.stand_in(bound);
            let outcome = self.run(op.node..op.node + 1);
            (*node).src[0] = original;
            self.end_call();
            outcome
        }
    }
}

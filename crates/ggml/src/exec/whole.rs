//! Whole nodes with their weight elsewhere: a `MUL_MAT_ID` over all slots of a pool, a `MUL_MAT` over a
//! ring's cell.
//!
//! The two forms that work on any device: nothing but ids is read or written here, and those by copies where
//! they are not host memory.

use crate::error::ExecError;
use crate::memory::Bytes;
use crate::sys;
use std::ffi::c_void;

use super::bind::{bind, bind_slots, remapped_ids};
use super::memory::is_host;
use super::operand::{in_range, to_usize};
use super::run::{GraphRun, StreamedKind, StreamedOp};

/// The ids operand of a `MUL_MAT_ID`: which experts each token uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoeIds {
    /// Experts per token.
    pub used: usize,
    /// Tokens of the step.
    pub tokens: usize,
    /// `tokens × used` expert numbers, token by token; −1 means none.
    pub experts: Vec<i32>,
}

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

impl GraphRun<'_> {
    /// Reads the ids operand of a `MUL_MAT_ID`. The node that makes it must have run; on a device, all that
    /// was launched is waited for.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the node is not a `MUL_MAT_ID` or an id is out of range.
    pub fn moe_ids(&mut self, op: StreamedOp) -> Result<MoeIds, ExecError> {
        let (used, tokens) = ids_shape(self, op)?;
        let node = self.node(op.node);
        // SAFETY: the weight of a MUL_MAT_ID is alive.
        let expert_count = unsafe { (*(*node).src[0]).ne[2] };
        let mut experts = Vec::with_capacity(used * tokens);
        with_ids(self, op, |bytes, [row, element]| {
            for at in (0..tokens).flat_map(|token| (0..used).map(move |slot| token * row + slot * element)) {
                let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                experts.push(i32::from_ne_bytes(four));
            }
            Some(())
        })?;
        match experts.iter().find(|id| **id < -1 || i64::from(**id) >= expert_count) {
            Some(id) => Err(ExecError::Misuse(format!("expert {id} of {expert_count}"))),
            None => Ok(MoeIds { used, tokens, experts }),
        }
    }

    /// Tokens of a `MUL_MAT_ID`, whether or not its ids have been made.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the node is not a `MUL_MAT_ID`.
    pub fn moe_tokens(&self, op: StreamedOp) -> Result<usize, ExecError> {
        Ok(ids_shape(self, op)?.1)
    }

    /// Overwrites the chosen experts. The node that makes them must have run, the nodes that use them not
    /// yet.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the shape or an expert does not fit.
    pub fn set_moe_ids(&mut self, op: StreamedOp, chosen: &MoeIds) -> Result<(), ExecError> {
        let current = self.moe_ids(op)?;
        if (current.used, current.tokens, current.experts.len())
            != (chosen.used, chosen.tokens, chosen.experts.len())
        {
            return Err(ExecError::Misuse("the forced ids have another shape".to_owned()));
        }
        let ids = ids_of(self, op)?;
        // SAFETY: the weight of a MUL_MAT_ID is alive.
        let expert_count = unsafe { (*(*self.node(op.node)).src[0]).ne[2] };
        if let Some(expert) = chosen.experts.iter().find(|id| **id < -1 || i64::from(**id) >= expert_count) {
            return Err(ExecError::Misuse(format!("expert {expert} of {expert_count}")));
        }
        for (at, expert) in chosen.experts.iter().enumerate() {
            let (token, slot) = (at / chosen.used, at % chosen.used);
            // SAFETY: the ids operand is alive, token and slot are inside its shape, and only the nodes to
            // come read it: a device has nothing to do (`moe_ids`).
            unsafe {
                let place = token * (*ids).nb[1] + slot * (*ids).nb[0];
                sys::ggml_backend_tensor_set(ids, std::ptr::from_ref(expert).cast(), place, 4);
            }
        }
        Ok(())
    }

    /// Runs a whole `MUL_MAT_ID` over the slots of a pool; `slots` replaces [`MoeIds::experts`], entry by
    /// entry (−1 stays −1).
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
        let (used, tokens) = ids_shape(self, op)?;
        if !binding.holds(self.slice_bytes(op)) {
            return Err(ExecError::Misuse(format!("a pool of {} bytes is too short", binding.memory.len())));
        }
        if slots.iter().any(|slot| *slot != -1 && !in_range(*slot, binding.slots)) {
            return Err(ExecError::Misuse("a slot number is out of range".to_owned()));
        }
        if slots.len() != used * tokens {
            return Err(ExecError::Misuse(format!("{} slots for {used}×{tokens} ids", slots.len())));
        }
        let node = self.node(op.node);
        // SAFETY: node and operands are alive; lengths were checked above, so the substituted tensors
        // describe memory that exists for this call. The operands are put back before anyone else can look: a
        // backend has taken down what it was given when it returns.
        unsafe {
            let (weight, ids) = ((*node).src[0], (*node).src[2]);
            let mut bound = bind_slots(self, weight, binding)?;
            let mut remapped = remapped_ids(self, ids, slots)?;
            remapped.nb = [4, 4 * used, 4 * used * tokens, 4 * used * tokens];
            (*node).src[0] = &raw mut bound;
            (*node).src[2] = &raw mut remapped;
            let outcome = self.run(op.node..op.node + 1);
            (*node).src[0] = weight;
            (*node).src[2] = ids;
            outcome
        }
    }

    /// Runs a `MUL_MAT` with its weight in other memory.
    ///
    /// # Errors
    /// As [`Self::run_bound`].
    pub fn run_dense(&mut self, op: StreamedOp, weight: Bytes<'_>) -> Result<(), ExecError> {
        if op.kind != StreamedKind::Dense || self.slice_bytes(op) > weight.len() {
            return Err(ExecError::Misuse(format!(
                "{} bytes are too short for node {}",
                weight.len(),
                op.node
            )));
        }
        let node = self.node(op.node);
        // SAFETY: as in `run_bound`; the length was checked.
        unsafe {
            let original = (*node).src[0];
            let mut bound = bind(self, original, weight)?;
            (*node).src[0] = &raw mut bound;
            let outcome = self.run(op.node..op.node + 1);
            (*node).src[0] = original;
            outcome
        }
    }
}

/// Experts per token and tokens.
fn ids_shape(run: &GraphRun<'_>, op: StreamedOp) -> Result<(usize, usize), ExecError> {
    if op.kind != StreamedKind::Experts {
        return Err(ExecError::Misuse(format!("node {} has no expert ids", op.node)));
    }
    // SAFETY: a MUL_MAT_ID has an ids operand, which is alive; only its shape is read.
    unsafe {
        let ids = &*(*run.node(op.node)).src[2];
        Ok((to_usize(ids.ne[0])?, to_usize(ids.ne[1])?))
    }
}

/// Gives the bytes of the ids operand to `read`, with the strides of a row and of an element.
fn with_ids(
    run: &mut GraphRun<'_>,
    op: StreamedOp,
    read: impl FnOnce(&[u8], [usize; 2]) -> Option<()>,
) -> Result<(), ExecError> {
    let ids = ids_of(run, op)?;
    // SAFETY: the ids operand is alive and has been computed. Host memory holds all of its bytes; from
    // other memory they are copied once the backend is done.
    let outcome = unsafe {
        let length = sys::ggml_nbytes(ids);
        let strides = [(*ids).nb[1], (*ids).nb[0]];
        if is_host(ids) {
            read(std::slice::from_raw_parts((*ids).data.cast::<u8>(), length), strides)
        } else {
            run.synchronize();
            let mut bytes = vec![0u8; length];
            sys::ggml_backend_tensor_get(ids, bytes.as_mut_ptr().cast::<c_void>(), 0, length);
            read(&bytes, strides)
        }
    };
    outcome.ok_or_else(|| ExecError::Misuse("the ids are shorter than their shape".to_owned()))
}

/// The ids operand.
fn ids_of(run: &GraphRun<'_>, op: StreamedOp) -> Result<*mut sys::ggml_tensor, ExecError> {
    ids_shape(run, op)?;
    // SAFETY: a MUL_MAT_ID has an ids operand; it has I32 elements by ggml's own assertion.
    let ids = unsafe { (*run.node(op.node)).src[2] };
    // SAFETY: as above; alive with the graph.
    if unsafe { (*ids).data.is_null() } {
        return Err(ExecError::Misuse("the ids have no memory".to_owned()));
    }
    Ok(ids)
}

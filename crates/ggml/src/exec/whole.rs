//! Whole nodes with their weight elsewhere: a `MUL_MAT_ID` over all slots of a pool, all those of a layer at
//! once, a node whose whole weight is in other memory.
//!
//! The forms that work on any device: nothing but ids is read or written here, and those by copies where they
//! are not host memory.

use crate::error::ExecError;
use crate::memory::Bytes;
use crate::sys;
use std::ops::Range;

use super::bind::{bind, bind_slots, remapped_ids};
use super::graph::{Graph, StreamedKind, StreamedOp};
use super::operand::in_range;
use super::run::GraphRun;
use super::slots::SlotBinding;

/// The operands that a node had.
struct Replaced {
    node: *mut sys::ggml_tensor,
    weight: *mut sys::ggml_tensor,
    ids: *mut sys::ggml_tensor,
}

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
        self.run_layer(&[(op, binding)], slots, op.node..op.node + 1)
    }

    /// Runs `nodes` in one call, with each `MUL_MAT_ID` of `ops` over the slots of its pool, as
    /// [`Self::run_bound`] does. What else has a streamed weight is not among them.
    ///
    /// # Errors
    /// As [`Self::run_bound`].
    pub fn run_layer(
        &mut self,
        ops: &[(StreamedOp, SlotBinding<'_>)],
        slots: &[i32],
        nodes: Range<usize>,
    ) -> Result<(), ExecError> {
        for (op, binding) in ops {
            check_slots(self.graph(), *op, binding, slots)?;
        }
        let mut replaced = Vec::with_capacity(ops.len());
        let bound = ops.iter().try_for_each(|(op, binding)| {
            replaced.push(replace(self, *op, *binding, slots)?);
            Ok(())
        });
        let outcome = bound.and_then(|()| self.run(nodes));
        for Replaced { node, weight, ids } in replaced {
            // SAFETY: the node is alive with the graph, and these were its operands.
            unsafe { ((*node).src[0], (*node).src[2]) = (weight, ids) };
        }
        self.end_call();
        outcome
    }

    /// Sends the ids of a layer ahead of [`Self::run_layer`], so that they do not queue behind uploads that
    /// it will wait for.
    ///
    /// # Errors
    /// As [`Self::run_bound`].
    pub fn send_slots(&mut self, op: StreamedOp, slots: &[i32]) -> Result<(), ExecError> {
        self.graph().ids_shape(op)?;
        // SAFETY: the node is alive and has ids (`ids_shape`), which are alive too.
        unsafe { remapped_ids(self, (*self.graph().node(op.node)).src[2], slots) }.map(drop)
    }

    /// Runs a node with its whole weight in other memory: a dense matrix, or the whole stack of a
    /// `MUL_MAT_ID`, whose ids stay as they are.
    ///
    /// # Errors
    /// As [`Self::run_bound`].
    pub fn run_elsewhere(&mut self, op: StreamedOp, weight: Bytes<'_>) -> Result<(), ExecError> {
        self.run_products(&[(op, weight)], op.node..op.node + 1)
    }

    /// Runs `nodes` in one call, those of `ops` as [`Self::run_elsewhere`] does. What else has a streamed
    /// weight is not among them.
    ///
    /// # Errors
    /// As [`Self::run_bound`].
    pub fn run_products(
        &mut self,
        ops: &[(StreamedOp, Bytes<'_>)],
        nodes: Range<usize>,
    ) -> Result<(), ExecError> {
        let mut replaced = Vec::with_capacity(ops.len());
        let bound = ops.iter().try_for_each(|(op, weight)| {
            replaced.push(replace_weight(self, *op, *weight)?);
            Ok(())
        });
        let outcome = bound.and_then(|()| self.run(nodes));
        for (node, original) in replaced {
            // SAFETY: the node is alive with the graph, and this was its operand.
            unsafe { (*node).src[0] = original };
        }
        self.end_call();
        outcome
    }
}

/// Gives a node a weight in other memory; returns the node and the weight that it had.
fn replace_weight(
    run: &mut GraphRun<'_>,
    op: StreamedOp,
    weight: Bytes<'_>,
) -> Result<(*mut sys::ggml_tensor, *mut sys::ggml_tensor), ExecError> {
    check_weight(run.graph(), op, weight)?;
    let node = run.graph().node(op.node);
    // SAFETY: as in `replace`; the length was checked.
    unsafe {
        let original = (*node).src[0];
        let bound = bind(run, original, weight)?;
        (*node).src[0] = run.scratch.standins.place(node, 0, bound);
        Ok((node, original))
    }
}

/// Whether memory is long enough for the whole weight of a node.
fn check_weight(graph: Graph<'_>, op: StreamedOp, weight: Bytes<'_>) -> Result<(), ExecError> {
    let slices = match op.kind {
        StreamedKind::Dense => 1,
        StreamedKind::Experts => {
            // SAFETY: the weight of a MUL_MAT_ID is alive.
            let slices = unsafe { (*(*graph.node(op.node)).src[0]).ne[2] };
            usize::try_from(slices).unwrap_or(usize::MAX)
        }
        StreamedKind::Rows | StreamedKind::Unsupported => {
            return Err(ExecError::Misuse(format!("node {} has no weight of its own", op.node)));
        }
    };
    if graph.slice_bytes(op).saturating_mul(slices) <= weight.len() {
        return Ok(());
    }
    Err(ExecError::Misuse(format!("{} bytes are too short for node {}", weight.len(), op.node)))
}

fn check_slots(
    graph: Graph<'_>,
    op: StreamedOp,
    binding: &SlotBinding<'_>,
    slots: &[i32],
) -> Result<(), ExecError> {
    let (used, tokens) = graph.ids_shape(op)?;
    if !binding.holds(graph.slice_bytes(op)) {
        return Err(ExecError::Misuse(format!("a pool of {} bytes is too short", binding.memory.len())));
    }
    if slots.iter().any(|slot| *slot != -1 && !in_range(*slot, binding.slots)) {
        return Err(ExecError::Misuse("a slot number is out of range".to_owned()));
    }
    if slots.len() != used * tokens {
        return Err(ExecError::Misuse(format!("{} slots for {used}×{tokens} ids", slots.len())));
    }
    Ok(())
}

/// Gives a node, which was checked, the slots of a pool as its weight.
fn replace(
    run: &mut GraphRun<'_>,
    op: StreamedOp,
    binding: SlotBinding<'_>,
    slots: &[i32],
) -> Result<Replaced, ExecError> {
    let (used, tokens) = run.graph().ids_shape(op)?;
    let node = run.graph().node(op.node);
    // SAFETY: node and operands are alive; lengths were checked (`check_slots`), so the substituted tensors
    // describe memory that exists for the caller's call. It puts the operands back before anyone else can
    // look: a backend has taken down what it was given when it returns, and the stand-ins stay until it is
    // waited for.
    unsafe {
        let (weight, ids) = ((*node).src[0], (*node).src[2]);
        let bound = bind_slots(run, weight, binding)?;
        let mut remapped = remapped_ids(run, ids, slots)?;
        remapped.nb = [4, 4 * used, 4 * used * tokens, 4 * used * tokens];
        (*node).src[0] = run.scratch.standins.place(node, 0, bound);
        (*node).src[2] = run.scratch.standins.place(node, 2, remapped);
        Ok(Replaced { node, weight, ids })
    }
}

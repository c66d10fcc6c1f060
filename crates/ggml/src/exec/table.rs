//! `GET_ROWS` of a table that streams: which rows a node gathers, and gathering them from memory that holds
//! only these rows.

use crate::error::ExecError;
use crate::sys;

use super::bind::bind;
use super::graph::{StreamedKind, StreamedOp};
use super::memory::require_host;
use super::operand::{plain_tensor, to_i64, to_usize};
use super::run::GraphRun;
use super::scratch::Scratch;
use super::slots::SlotBinding;

/// A `GET_ROWS` of a table that streams.
#[derive(Clone, Copy, Debug)]
pub struct RowsOp(StreamedOp);

impl RowsOp {
    /// # Errors
    /// [`ExecError::Misuse`] when the node is none.
    pub fn new(op: StreamedOp) -> Result<Self, ExecError> {
        if op.kind == StreamedKind::Rows {
            return Ok(Self(op));
        }
        Err(ExecError::Misuse(format!("node {} gathers no rows", op.node)))
    }

    /// The rows that it gathers, in the order of its result; `None` while the node that makes its
    /// ids has yet to run, as far as the graph tells. Ids that are inputs are there from the start.
    ///
    /// # Errors
    /// As [`Self::ids`].
    pub fn known_ids(self, run: &GraphRun<'_>) -> Result<Option<Vec<u32>>, ExecError> {
        // SAFETY: a GET_ROWS has an ids operand; what it views is alive with it.
        let is_input = unsafe {
            let mut ids = (*run.graph().node(self.0.node)).src[1];
            while is_view((*ids).op) && !(*ids).src[0].is_null() {
                ids = (*ids).src[0];
            }
            (*ids).op == sys::GGML_OP_NONE
        };
        if is_input { self.ids(run).map(Some) } else { Ok(None) }
    }

    /// The rows that it gathers, in the order of its result. The node that makes its ids must have
    /// run.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the table has not two dimensions, its ids are not in
    /// host memory, or one of them is no row of the table.
    pub fn ids(self, run: &GraphRun<'_>) -> Result<Vec<u32>, ExecError> {
        // SAFETY: a GET_ROWS has a table and an ids operand of I32 by ggml's own assertions; both are alive,
        // and the ids have been made and are in host memory (`require_host`).
        unsafe {
            let node = run.graph().node(self.0.node);
            let (table, ids) = (&*(*node).src[0], &*(*node).src[1]);
            if [table.ne[2], table.ne[3], ids.ne[1], ids.ne[2]] != [1; 4] {
                return Err(ExecError::Misuse(format!(
                    "node {} gathers from a stack of tables",
                    self.0.node
                )));
            }
            require_host(ids)?;
            let count = to_usize(ids.ne[0])?;
            let first = ids.data.cast::<u8>();
            let id = |at: usize| {
                let id = first.add(at * ids.nb[0]).cast::<i32>().read_unaligned();
                let row = u32::try_from(id).ok().filter(|row| i64::from(*row) < table.ne[1]);
                row.ok_or_else(|| ExecError::Misuse(format!("row {id} of {}", table.ne[1])))
            };
            (0..count).map(id).collect()
        }
    }

    /// Gathers some of its rows: those of its result from `first` on, one for each of `slots`, which
    /// say where in `binding` the rows of the table are.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] on sizes, slots or memory that do not fit, [`ExecError::Backend`] when the
    /// backend fails.
    pub fn gather(
        self,
        run: &mut GraphRun<'_>,
        binding: SlotBinding<'_>,
        slots: &[i32],
        first: usize,
    ) -> Result<(), ExecError> {
        let node = run.graph().node(self.0.node);
        // SAFETY: the node is alive.
        let (all, row) = unsafe { (to_usize((*node).ne[1])?, (*node).nb[1]) };
        let sound = binding.holds(run.graph().slice_bytes(self.0))
            && first.checked_add(slots.len()).is_some_and(|end| end <= all)
            && slots.iter().all(|slot| usize::try_from(*slot).is_ok_and(|slot| slot < binding.slots));
        if !sound || slots.is_empty() {
            return Err(ExecError::Misuse(format!("rows {first}.. of node {} do not fit", self.0.node)));
        }
        // SAFETY: node and operands are alive; the substituted pointers address slots whose reach was
        // checked, ids in scratch memory, and rows inside of the node's own result, which is host memory.
        // `tensors` has room for all of them, so that they do not move.
        unsafe {
            require_host(node)?;
            let mut table = bind(run, (*node).src[0], binding.memory)?;
            table.ne[1] = to_i64(binding.slots)?;
            table.nb[1] = binding.stride;
            (table.nb[2], table.nb[3]) = (binding.stride * binding.slots, binding.stride * binding.slots);
            let Scratch { slots: ids, tensors, nodes, .. } = &mut *run.scratch;
            ids.clear();
            ids.extend_from_slice(slots);
            let mut chosen = plain_tensor((*node).src[1], ids.as_mut_ptr().cast());
            let bytes = size_of_val(slots);
            (chosen.op, chosen.src) = (sys::GGML_OP_NONE, [std::ptr::null_mut(); 10]);
            chosen.ne = [to_i64(slots.len())?, 1, 1, 1];
            chosen.nb = [4, bytes, bytes, bytes];
            let mut result = plain_tensor(node, (*node).data.cast::<u8>().add(first * row));
            result.ne[1] = to_i64(slots.len())?;
            (result.nb[2], result.nb[3]) = (row * slots.len(), row * slots.len());
            tensors.clear();
            nodes.clear();
            tensors.reserve_exact(3);
            let base = tensors.as_mut_ptr();
            (result.src[0], result.src[1]) = (base, base.add(1));
            tensors.extend([table, chosen, result]);
            nodes.push(base.add(2));
        }
        run.compute_planned()
    }
}

fn is_view(op: sys::ggml_op) -> bool {
    [sys::GGML_OP_VIEW, sys::GGML_OP_RESHAPE, sys::GGML_OP_PERMUTE, sys::GGML_OP_TRANSPOSE].contains(&op)
}

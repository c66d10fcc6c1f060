//! Running some rows of a `MUL_MAT_ID`: gather inputs, one small node per group, scatter results.

use super::bind::bind_slots;
use super::convert::convert_input;
use super::graph::{StreamedKind, StreamedOp};
use super::memory::require_host;
use super::operand::{in_range, lay_out, plain_tensor, to_usize};
use super::run::GraphRun;
use super::scratch::{RowForm, Scratch};
use super::slots::SlotBinding;
use crate::error::ExecError;
use crate::sys;

/// Rows whose experts are in memory, to be computed by one node.
#[derive(Clone, Copy, Debug)]
pub struct RowGroup<'a> {
    /// Where the experts are.
    pub binding: SlotBinding<'a>,
    /// Indices into [`MoeIds::experts`](super::MoeIds::experts).
    pub pairs: &'a [u32],
    /// For each pair, the slot of its expert.
    pub slots: &'a [i32],
}

impl GraphRun<'_> {
    /// Zeroes the result rows of pairs without an expert (id −1).
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when a pair is out of range.
    pub fn zero_rows(&mut self, op: StreamedOp, pairs: &[u32]) -> Result<(), ExecError> {
        let shape = rows_shape(self, op)?;
        for pair in pairs {
            let row = result_row(self, op, shape, *pair)?;
            // SAFETY: `result_row` returned a row of `rows` floats inside the node's result.
            unsafe { std::ptr::write_bytes(row, 0, shape.rows) };
        }
        Ok(())
    }

    /// Runs some rows of a `MUL_MAT_ID`, one node per group. Every pair of an expert must be in the same
    /// group.
    ///
    /// # Errors
    /// As [`Self::run_bound`].
    pub fn run_rows(&mut self, op: StreamedOp, groups: &[RowGroup<'_>]) -> Result<(), ExecError> {
        let shape = rows_shape(self, op)?;
        let slice = self.graph().slice_bytes(op);
        for group in groups {
            if !group.binding.holds(slice) {
                return Err(ExecError::Misuse(format!(
                    "a pool of {} bytes is too short for node {}",
                    group.binding.memory.len(),
                    op.node
                )));
            }
            let sound = group.pairs.len() == group.slots.len()
                && group.slots.iter().all(|slot| in_range(*slot, group.binding.slots));
            if !sound {
                return Err(ExecError::Misuse("a slot number is out of range".to_owned()));
            }
        }
        let converted = convert_input(self, op, shape.tokens * shape.broadcast)?;
        let form = if converted {
            self.gather_converted(shape, groups)?;
            self.scratch.converted.form
        } else {
            self.gather(op, shape, groups)?;
            RowForm { ty: sys::GGML_TYPE_F32, words: shape.columns }
        };
        self.plan_rows(op, shape, form, groups)?;
        self.compute_planned()?;
        self.scatter(op, shape, groups)
    }

    fn gather(&mut self, op: StreamedOp, shape: RowsShape, groups: &[RowGroup<'_>]) -> Result<(), ExecError> {
        let node = self.graph().node(op.node);
        self.scratch.input.clear();
        for pair in groups.iter().flat_map(|group| group.pairs) {
            let (token, slot) = shape.split(*pair)?;
            // SAFETY: token and slot were checked against the ids' shape; row `slot % broadcast` of `token`
            // lies in the live input operand, whose rows are contiguous floats (`rows_shape`).
            let row = unsafe {
                let input = &*(*node).src[1];
                let at = token * input.nb[2] + (slot % shape.broadcast) * input.nb[1];
                std::slice::from_raw_parts(input.data.cast::<u8>().add(at).cast::<f32>(), shape.columns)
            };
            self.scratch.input.extend_from_slice(row);
        }
        Ok(())
    }

    fn gather_converted(&mut self, shape: RowsShape, groups: &[RowGroup<'_>]) -> Result<(), ExecError> {
        let Scratch { input, converted, .. } = &mut *self.scratch;
        let words = converted.form.words;
        input.clear();
        for pair in groups.iter().flat_map(|group| group.pairs) {
            let (token, slot) = shape.split(*pair)?;
            let row = token * shape.broadcast + slot % shape.broadcast;
            input.extend_from_slice(&converted.words[row * words..][..words]);
        }
        Ok(())
    }

    /// Lays out one small `MUL_MAT_ID` per group over the gathered rows, which have `form`.
    fn plan_rows(
        &mut self,
        op: StreamedOp,
        shape: RowsShape,
        form: RowForm,
        groups: &[RowGroup<'_>],
    ) -> Result<(), ExecError> {
        let node = self.graph().node(op.node);
        let total: usize = groups.iter().map(|group| group.pairs.len()).sum();
        let mut weights = Vec::with_capacity(groups.len());
        for group in groups.iter().filter(|group| !group.pairs.is_empty()) {
            // SAFETY: the weight is alive with its node.
            weights.push(unsafe { bind_slots(self, (*node).src[0], group.binding)? });
        }
        let Scratch { input, output, slots, tensors, nodes, .. } = &mut *self.scratch;
        output.resize(output.len().max(total * shape.rows), 0.0);
        slots.clear();
        slots.extend(groups.iter().flat_map(|group| group.slots));
        tensors.clear();
        nodes.clear();
        // No reallocation below: the tensors point at each other.
        tensors.reserve_exact(4 * groups.len());
        let mut first = 0;
        let computed = groups.iter().filter(|group| !group.pairs.is_empty());
        for (group, weight) in computed.zip(weights) {
            let count = group.pairs.len();
            // SAFETY: node and operands are alive; the substituted data pointers address `count` rows of
            // scratch memory and slots whose reach `run_rows` checked; `tensors` never reallocates here.
            unsafe {
                let mut rows =
                    plain_tensor((*node).src[1], input.as_mut_ptr().add(first * form.words).cast());
                rows.type_ = form.ty;
                lay_out(&mut rows, [shape.columns, 1, count])?;
                let mut ids = plain_tensor((*node).src[2], slots.as_mut_ptr().add(first).cast());
                lay_out(&mut ids, [1, count, 1])?;
                let mut result = plain_tensor(node, output.as_mut_ptr().add(first * shape.rows).cast());
                lay_out(&mut result, [shape.rows, 1, count])?;
                let base = tensors.as_mut_ptr().add(tensors.len());
                result.src[0] = base;
                result.src[1] = base.add(1);
                result.src[2] = base.add(2);
                tensors.extend([weight, rows, ids, result]);
                nodes.push(base.add(3));
            }
            first += count;
        }
        Ok(())
    }

    fn scatter(
        &mut self,
        op: StreamedOp,
        shape: RowsShape,
        groups: &[RowGroup<'_>],
    ) -> Result<(), ExecError> {
        for (at, pair) in groups.iter().flat_map(|group| group.pairs).enumerate() {
            let row = result_row(self, op, shape, *pair)?;
            let source = &self.scratch.output[at * shape.rows..][..shape.rows];
            // SAFETY: `result_row` returned a row of `rows` floats of the node's result, which is not scratch
            // memory.
            unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), row, shape.rows) };
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct RowsShape {
    /// Length of an input row.
    columns: usize,
    /// Length of a result row.
    rows: usize,
    used: usize,
    tokens: usize,
    /// Input rows per token: 1 (the same for all experts) or `used`.
    broadcast: usize,
}

impl RowsShape {
    fn split(&self, pair: u32) -> Result<(usize, usize), ExecError> {
        let pair = pair as usize;
        let (token, slot) = (pair / self.used.max(1), pair % self.used.max(1));
        if token < self.tokens {
            Ok((token, slot))
        } else {
            Err(ExecError::Misuse(format!("pair {pair} of {}×{}", self.tokens, self.used)))
        }
    }
}

fn rows_shape(run: &GraphRun<'_>, op: StreamedOp) -> Result<RowsShape, ExecError> {
    let node = run.graph().node(op.node);
    // SAFETY: node and operands are alive.
    unsafe {
        let input = &*(*node).src[1];
        let usable = op.kind == StreamedKind::Experts
            && input.type_ == sys::GGML_TYPE_F32
            && input.nb[0] == 4
            && (*node).nb[0] == 4
            && (*node).type_ == sys::GGML_TYPE_F32;
        if !usable {
            return Err(ExecError::Misuse(format!("node {} cannot run by rows", op.node)));
        }
        require_host(node)?;
        require_host(input)?;
        let ids = &*(*node).src[2];
        Ok(RowsShape {
            columns: to_usize(input.ne[0])?,
            rows: to_usize((*node).ne[0])?,
            used: to_usize(ids.ne[0])?,
            tokens: to_usize(ids.ne[1])?,
            broadcast: to_usize(input.ne[1])?,
        })
    }
}

/// The result row of a pair.
fn result_row(
    run: &GraphRun<'_>,
    op: StreamedOp,
    shape: RowsShape,
    pair: u32,
) -> Result<*mut f32, ExecError> {
    let (token, slot) = shape.split(pair)?;
    let node = run.graph().node(op.node);
    // SAFETY: the result of a MUL_MAT_ID has shape [rows, used, tokens]; both indices were checked.
    Ok(unsafe { (*node).data.cast::<u8>().add(token * (*node).nb[2] + slot * (*node).nb[1]).cast::<f32>() })
}

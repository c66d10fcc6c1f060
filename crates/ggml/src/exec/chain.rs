//! An expert layer as one chain: products of the input (gate and up), biases and activation, and the product
//! of that (down). A chain is computed for whichever experts are in memory, in one call of the backend, and
//! its results stay in scratch memory until all of them are there.
//!
//! Why results are written to the graph's own tensors only at the end: ggml's allocator may give a later node
//! the memory of an earlier one or of the input, and experts that come late still need both. Bits do not
//! depend on any of this: each result row depends on its own input row alone, and all rows of an expert are
//! computed in the same call.

use crate::error::ExecError;
use crate::sys;

use super::bind::bind_slots;
use super::graph::{Graph, StreamedKind, StreamedOp};
use super::ids::MoeIds;
use super::memory::is_host;
use super::operand::{in_range, lay_out, plain_tensor, to_int, to_usize};
use super::run::GraphRun;
use super::scratch::Scratch;
use super::slots::SlotBinding;

/// The nodes of an expert layer that can be computed expert by expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertChain {
    steps: Vec<ChainStep>,
    /// Experts per token and tokens.
    used: usize,
    tokens: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChainStep {
    node: usize,
    /// Length of a result row.
    width: usize,
    kind: StepKind,
}

/// What a node of a chain does; numbers are indices of earlier steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepKind {
    /// A product of the layer's input with a stack of experts.
    First(StreamedOp),
    /// A bias of each expert.
    Bias(usize),
    /// An activation that joins two results.
    Join(usize, usize),
    /// The product of an earlier result with a stack of experts; always the last step.
    Last(StreamedOp, usize),
}

/// Rows of experts that can be computed now: a pair (an index into the ids) and the slot of its expert.
pub type ChainRow = (u32, i32);

impl ExpertChain {
    /// The chain that the streamed nodes of one layer form with the nodes between them, if they form one that
    /// is known: anything else is computed node by node.
    #[must_use]
    pub fn of(run: &GraphRun<'_>, ops: &[StreamedOp]) -> Option<Self> {
        let (first, last) = (ops.first()?, ops.last()?);
        if !run.is_host()
            || ops.len() < 2
            || ops.iter().any(|op| op.kind != StreamedKind::Experts || op.ids != first.ids)
        {
            return None;
        }
        // SAFETY: nodes and operands of the graph are alive.
        let (used, tokens, input) = unsafe {
            let graph = run.graph();
            let node = graph.node(first.node);
            let ids = &*(*node).src[2];
            (to_usize(ids.ne[0]).ok()?, to_usize(ids.ne[1]).ok()?, (*node).src[1])
        };
        let mut steps: Vec<ChainStep> = Vec::with_capacity(last.node + 1 - first.node);
        for index in first.node..=last.node {
            let op = ops.iter().find(|op| op.node == index).copied();
            // SAFETY: as above.
            let kind =
                unsafe { step_kind(run.graph(), index, op, index == last.node, (input, first.ids), &steps)? };
            // SAFETY: as above.
            let width = unsafe { to_usize((*run.graph().node(index)).ne[0]).ok()? };
            steps.push(ChainStep { node: index, width, kind });
        }
        Some(Self { steps, used, tokens })
    }

    /// The node after the last one of the chain.
    #[must_use]
    pub fn end(&self) -> usize {
        self.steps.last().map_or(0, |step| step.node + 1)
    }

    fn pairs(&self) -> usize {
        self.used * self.tokens
    }

    /// Forgets the results of the layer before and makes room for those of this one.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the ids cannot be read.
    pub fn begin(&self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        let op = self.steps.first().and_then(|step| match step.kind {
            StepKind::First(op) => Some(op),
            _ => None,
        });
        let op = op.ok_or_else(|| ExecError::Misuse("a chain without a product".to_owned()))?;
        let ids = MoeIds::read(run, op)?;
        let scratch = &mut run.scratch.chain;
        scratch.experts = ids.experts;
        scratch.order.clear();
        scratch.position.clear();
        scratch.position.resize(self.pairs(), usize::MAX);
        scratch.results.resize_with(scratch.results.len().max(self.steps.len()), Vec::new);
        for (rows, step) in scratch.results.iter_mut().zip(&self.steps) {
            let length = self.pairs() * step.width;
            rows.resize(rows.len().max(length), 0.0);
        }
        Ok(())
    }

    /// Computes all but the last product for the rows of `upper`, and the last product for the rows of
    /// `lower`, whose others were computed before or are in `upper`. `bindings` belongs to the streamed
    /// nodes, in order. All rows of an expert must come together.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] on rows or slots out of range, [`ExecError::Backend`] when the backend fails.
    pub fn run(
        &self,
        run: &mut GraphRun<'_>,
        bindings: &[SlotBinding<'_>],
        upper: &[ChainRow],
        lower: &[ChainRow],
    ) -> Result<(), ExecError> {
        check_chain(run.graph(), self, bindings, upper, lower)?;
        // ggml's work for a product grows with the number of slots that it sees, used or not.
        let used = upper.iter().chain(lower).map(|(_, slot)| to_usize(i64::from(*slot)));
        let used = used.collect::<Result<Vec<usize>, _>>()?;
        let (lowest, highest) = (used.iter().min().copied(), used.iter().max().copied());
        let Some((lowest, highest)) = lowest.zip(highest) else { return Ok(()) };
        let bindings: Option<Vec<_>> =
            bindings.iter().map(|binding| binding.window(lowest, highest)).collect();
        let bindings = bindings.ok_or_else(|| ExecError::Misuse("a slot is out of range".to_owned()))?;
        let from = run.scratch.chain.order.len();
        for (pair, _) in upper {
            run.scratch.chain.position[*pair as usize] = run.scratch.chain.order.len();
            run.scratch.chain.order.push(*pair);
        }
        let mut down: Vec<(usize, i32)> = Vec::with_capacity(lower.len());
        for (pair, slot) in lower {
            match run.scratch.chain.position[*pair as usize] {
                usize::MAX => return Err(ExecError::Misuse(format!("pair {pair} comes out of order"))),
                position => down.push((position, *slot)),
            }
        }
        down.sort_unstable();
        lay_ids(run.scratch, upper, &down, lowest)?;
        run.scratch.tensors.clear();
        run.scratch.nodes.clear();
        // No reallocation below: the tensors point at each other.
        run.scratch.tensors.reserve_exact(4 * (self.steps.len() + down.len()));
        if !upper.is_empty() {
            self.gather_input(run, upper)?;
            self.plan_upper(run, &bindings, from, upper.len())?;
        }
        self.plan_lower(run, &bindings, &down, 2 * upper.len())?;
        run.compute_planned()
    }

    /// Writes all results to the graph's own tensors.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when rows are missing.
    pub fn finish(&self, run: &mut GraphRun<'_>) -> Result<(), ExecError> {
        let scratch = &run.scratch.chain;
        if scratch.order.len() != self.pairs() {
            return Err(ExecError::Misuse(format!("{} rows of {}", scratch.order.len(), self.pairs())));
        }
        for (rows, step) in scratch.results.iter().zip(&self.steps) {
            let node = run.graph().node(step.node);
            for (row, pair) in rows.chunks_exact(step.width).zip(&scratch.order) {
                let (token, slot) = (*pair as usize / self.used, *pair as usize % self.used);
                // SAFETY: the node's shape is [width, used, tokens]; token and slot are below them
                // (`begin` sized `position` so, `run` indexed it with every pair).
                unsafe {
                    let to = (*node).data.cast::<u8>().add(token * (*node).nb[2] + slot * (*node).nb[1]);
                    std::ptr::copy_nonoverlapping(row.as_ptr(), to.cast::<f32>(), step.width);
                }
            }
        }
        Ok(())
    }

    /// The input row of each upper row, one after the other.
    fn gather_input(&self, run: &mut GraphRun<'_>, upper: &[ChainRow]) -> Result<(), ExecError> {
        let node = run.graph().node(self.steps[0].node);
        run.scratch.input.clear();
        // SAFETY: the first step is a product; its input has rows of contiguous floats (`step_kind`),
        // `tokens` times one or `used` of them, and pairs were checked.
        unsafe {
            let input = &*(*node).src[1];
            let (columns, broadcast) = (to_usize(input.ne[0])?, to_usize(input.ne[1])?.max(1));
            for (pair, _) in upper {
                let (token, slot) = (*pair as usize / self.used, *pair as usize % self.used);
                let at = token * input.nb[2] + (slot % broadcast) * input.nb[1];
                let row = input.data.cast::<u8>().add(at).cast::<f32>();
                run.scratch.input.extend_from_slice(std::slice::from_raw_parts(row, columns));
            }
        }
        Ok(())
    }

    /// Lays out the steps before the last product for `count` rows at positions `from` and up.
    fn plan_upper(
        &self,
        run: &mut GraphRun<'_>,
        bindings: &[SlotBinding<'_>],
        from: usize,
        count: usize,
    ) -> Result<(), ExecError> {
        let mut products = bindings.iter();
        let mut results: Vec<*mut sys::ggml_tensor> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let node = run.graph().node(step.node);
            // SAFETY: node and operands are alive. Substituted pointers address scratch memory: `count`
            // gathered input rows, `pairs` result rows of each step (`begin`), and 2 × `count` ids
            // (`lay_ids`). The pool was checked. `tensors` does not reallocate (`run` reserved four for
            // each step and lower row).
            unsafe {
                let to = run.scratch.chain.results[index].as_mut_ptr().add(from * step.width);
                let mut result = plain_tensor(node, to.cast());
                lay_out(&mut result, [step.width, count, 1])?;
                match step.kind {
                    StepKind::First(_) => {
                        let Some(binding) = products.next() else { break };
                        let bound = bind_slots(run, (*node).src[0], *binding)?;
                        let weight = run.scratch.push(bound);
                        let columns = to_usize((*weight).ne[0])?;
                        let mut rows = plain_tensor((*node).src[1], run.scratch.input.as_mut_ptr().cast());
                        lay_out(&mut rows, [columns, count, 1])?;
                        result.src[0] = weight;
                        result.src[1] = run.scratch.push(rows);
                        result.src[2] = push_ids(run.scratch, (*node).src[2], 0, count)?;
                    }
                    StepKind::Bias(of) => {
                        result.src[0] = results[of];
                        result.src[2] = push_ids(run.scratch, (*node).src[2], count, count)?;
                    }
                    StepKind::Join(one, other) => {
                        result.src[0] = results[one];
                        result.src[1] = results[other];
                    }
                    StepKind::Last(..) => break,
                }
                let result = run.scratch.push(result);
                results.push(result);
                run.scratch.nodes.push(result);
            }
        }
        Ok(())
    }

    /// Lays out the last product for the rows at the positions of `down`, one node for each run of
    /// neighbours. Their slots begin at `ids_at`.
    fn plan_lower(
        &self,
        run: &mut GraphRun<'_>,
        bindings: &[SlotBinding<'_>],
        down: &[(usize, i32)],
        ids_at: usize,
    ) -> Result<(), ExecError> {
        let Some((last, ChainStep { node, width, kind: StepKind::Last(_, of) })) =
            self.steps.iter().copied().enumerate().next_back()
        else {
            return Err(ExecError::Misuse("a chain without an end".to_owned()));
        };
        let binding =
            bindings.last().copied().ok_or_else(|| ExecError::Misuse("a chain without slots".to_owned()))?;
        let node = run.graph().node(node);
        let input_width = self.steps[of].width;
        let mut first = 0;
        for neighbours in down.chunk_by(|one, next| one.0 + 1 == next.0) {
            let (from, count) = (neighbours[0].0, neighbours.len());
            // SAFETY: as in `plan_upper`; the input rows are the results of an earlier step at the same
            // positions.
            unsafe {
                let bound = bind_slots(run, (*node).src[0], binding)?;
                let weight = run.scratch.push(bound);
                let input = run.scratch.chain.results[of].as_mut_ptr().add(from * input_width);
                let mut rows = plain_tensor((*node).src[1], input.cast());
                lay_out(&mut rows, [input_width, count, 1])?;
                let to = run.scratch.chain.results[last].as_mut_ptr().add(from * width);
                let mut result = plain_tensor(node, to.cast());
                lay_out(&mut result, [width, count, 1])?;
                result.src[0] = weight;
                result.src[1] = run.scratch.push(rows);
                result.src[2] = push_ids(run.scratch, (*node).src[2], ids_at + first, count)?;
                let result = run.scratch.push(result);
                run.scratch.nodes.push(result);
            }
            first += count;
        }
        Ok(())
    }
}

/// What a node does in a chain whose products share an input and ids; `None` for anything that is not known.
///
/// # Safety
/// The graph's nodes and operands are alive.
unsafe fn step_kind(
    graph: Graph<'_>,
    index: usize,
    op: Option<StreamedOp>,
    is_last: bool,
    (input, ids): (*const sys::ggml_tensor, usize),
    steps: &[ChainStep],
) -> Option<StepKind> {
    let tensor = graph.node(index);
    let earlier = |wanted: *mut sys::ggml_tensor| {
        steps.iter().position(|step| std::ptr::eq(graph.node(step.node), wanted))
    };
    // SAFETY: the caller vouches for the nodes; unused operands are null and compared only.
    unsafe {
        let node = &*tensor;
        if node.type_ != sys::GGML_TYPE_F32 || node.nb[0] != 4 || !is_host(node) {
            return None;
        }
        match (op, node.op) {
            (Some(op), sys::GGML_OP_MUL_MAT_ID) if is_last => Some(StepKind::Last(op, earlier(node.src[1])?)),
            (Some(op), sys::GGML_OP_MUL_MAT_ID) => {
                let same_input = std::ptr::eq(node.src[1].cast_const(), input)
                    && is_host(input)
                    && (*input).type_ == sys::GGML_TYPE_F32
                    && (*input).nb[0] == 4;
                same_input.then_some(StepKind::First(op))
            }
            (None, sys::GGML_OP_ADD_ID) => {
                let bias = &*node.src[1];
                let resident = bias.op == sys::GGML_OP_NONE
                    && !bias.data.is_null()
                    && is_host(bias)
                    && !crate::buffer::is_streamed(bias);
                (resident && node.src[2] as usize == ids).then_some(StepKind::Bias(earlier(node.src[0])?))
            }
            (None, sys::GGML_OP_GLU) => Some(StepKind::Join(earlier(node.src[0])?, earlier(node.src[1])?)),
            _ => None,
        }
    }
}

/// Slots of the upper rows counted from `lowest`, their experts, and slots of the lower rows.
fn lay_ids(
    scratch: &mut Scratch,
    upper: &[ChainRow],
    down: &[(usize, i32)],
    lowest: usize,
) -> Result<(), ExecError> {
    let lowest = to_int(lowest)?;
    let scratch = &mut scratch.chain;
    scratch.ids.clear();
    scratch.ids.extend(upper.iter().map(|(_, slot)| slot - lowest));
    scratch.ids.extend(upper.iter().map(|(pair, _)| scratch.experts[*pair as usize]));
    scratch.ids.extend(down.iter().map(|(_, slot)| slot - lowest));
    Ok(())
}

/// An ids operand of `count` of the ids laid out for this call.
///
/// # Safety
/// `ids` is alive; the ids of this call reach to `at + count`.
unsafe fn push_ids(
    scratch: &mut Scratch,
    ids: *const sys::ggml_tensor,
    at: usize,
    count: usize,
) -> Result<*mut sys::ggml_tensor, ExecError> {
    // SAFETY: the caller's promise.
    let mut stand_in = unsafe { plain_tensor(ids, scratch.chain.ids.as_mut_ptr().add(at).cast()) };
    lay_out(&mut stand_in, [count, 1, 1])?;
    Ok(scratch.push(stand_in))
}

fn check_chain(
    graph: Graph<'_>,
    chain: &ExpertChain,
    bindings: &[SlotBinding<'_>],
    upper: &[ChainRow],
    lower: &[ChainRow],
) -> Result<(), ExecError> {
    let ops = chain.steps.iter().filter_map(|step| match step.kind {
        StepKind::First(op) | StepKind::Last(op, _) => Some(op),
        StepKind::Bias(_) | StepKind::Join(..) => None,
    });
    let mut count = 0;
    for (op, binding) in ops.zip(bindings) {
        count += 1;
        if !binding.holds(graph.slice_bytes(op)) {
            return Err(ExecError::Misuse(format!("a pool of {} bytes is too short", binding.memory.len())));
        }
    }
    let slots = bindings.iter().map(|binding| binding.slots).min().unwrap_or(0);
    let sound = |(pair, slot): &ChainRow| (*pair as usize) < chain.pairs() && in_range(*slot, slots);
    if count != bindings.len() || !upper.iter().chain(lower).all(sound) {
        return Err(ExecError::Misuse("a row or a slot is out of range".to_owned()));
    }
    Ok(())
}

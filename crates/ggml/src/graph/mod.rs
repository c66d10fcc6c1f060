//! A graph in execution, as the engine sees it: which nodes use streamed weights, and how to run pieces of it.
//!
//! A node with a streamed weight runs on the inner backend unchanged: for the length of one call its weight operand is
//! replaced by a copy of the tensor that points at memory the engine supplies. Four forms exist:
//! - [`GraphRun::run_bound`]: the whole `MUL_MAT_ID` over a slab of slots, with ids remapped to slots;
//! - [`GraphRun::run_rows`]: only the rows of some experts, gathered and scattered, so that experts can be computed as
//!   their bytes land; all rows of an expert go in one group, because ggml picks its kernel by their number;
//! - [`GraphRun::run_chain`]: all nodes of an expert layer for the experts whose bytes are there;
//! - [`GraphRun::run_dense`]: a `MUL_MAT` with its weight elsewhere.
//!
//! Sizes and ids are checked here, so that the engine needs no unsafe code. Memory travels as `&[AtomicU8]`: the
//! engine's readers may write other parts of the same allocation meanwhile.

mod chain;
mod convert;
mod copies;
mod operand;
mod router;
mod rows;

pub use chain::{ChainRow, ExpertChain};
pub use router::MatMul;

use crate::buffer::STATUS_OK;
use crate::buffer_type::is_streamed;
use crate::error::ExecError;
use crate::interlude::Interlude;
use crate::sys::{self, raw};
use operand::{bind, bind_slab, in_range, plain_tensor, to_int, to_usize};
use std::ffi::CStr;
use std::ops::Range;
use std::sync::atomic::AtomicU8;

/// Runs the graphs of one context. Implemented by the engine.
pub trait Executor: Send {
    /// Computes every node of the graph, in order.
    ///
    /// # Errors
    /// Any error voids the decode in progress and is returned from it.
    fn compute(&mut self, run: &mut GraphRun<'_>) -> Result<(), ExecError>;

    /// Slots of each size class that there are now.
    fn slots(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Bytes of memory that it could do without.
    fn spare_bytes(&self) -> u64 {
        0
    }

    /// Gives up at least so many bytes of memory, as far as it can do without them; returns how many.
    fn give_back(&mut self, _bytes: u64) -> u64 {
        0
    }
}

/// Identifies a streamed weight as long as its model lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WeightId(usize);

/// What a node does with its streamed weight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamedKind {
    /// `MUL_MAT_ID`: a stack of experts, chosen by ids.
    Experts,
    /// `MUL_MAT`: one matrix.
    Dense,
    /// Any other operation: it cannot be streamed.
    Unsupported,
}

/// A node with a streamed weight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamedOp {
    /// Index in the graph.
    pub node: usize,
    /// The weight.
    pub weight: WeightId,
    /// The operation.
    pub kind: StreamedKind,
    /// Identifies the ids operand: nodes with equal values choose the same experts. 0 without one.
    pub ids: usize,
}

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
pub struct SlabBinding<'a> {
    /// From the slice in slot 0 to the end of the slice in the last slot.
    pub memory: &'a [AtomicU8],
    /// Bytes from one slot to the next.
    pub stride: usize,
    /// Number of slots.
    pub slots: usize,
}

/// Rows whose experts are in memory, to be computed by one node.
#[derive(Clone, Copy, Debug)]
pub struct RowGroup<'a> {
    /// Where the experts are.
    pub slab: SlabBinding<'a>,
    /// Indices into [`MoeIds::experts`].
    pub pairs: &'a [u32],
    /// For each pair, the slot of its expert.
    pub slots: &'a [i32],
}

impl SlabBinding<'_> {
    /// The slots `lowest..=highest`, which exist.
    fn window(self, lowest: usize, highest: usize) -> Self {
        Self { memory: &self.memory[lowest * self.stride..], slots: highest + 1 - lowest, ..self }
    }

    /// Whether `slots` slices of `slice` bytes fit.
    fn holds(&self, slice: usize) -> bool {
        self.slots
            .checked_sub(1)
            .and_then(|last| last.checked_mul(self.stride)?.checked_add(slice))
            .is_some_and(|reach| reach <= self.memory.len())
    }
}

/// Memory reused from call to call.
#[derive(Default)]
pub(crate) struct Scratch {
    input: Vec<f32>,
    output: Vec<f32>,
    slots: Vec<i32>,
    tensors: Vec<sys::ggml_tensor>,
    nodes: Vec<*mut sys::ggml_tensor>,
    converted: convert::Converted,
    routers: copies::RouterCopies,
    chain: chain::ChainScratch,
}

/// One graph in execution.
pub struct GraphRun<'a> {
    inner: sys::ggml_backend_t,
    graph: *mut raw::ggml_cgraph,
    scratch: &'a mut Scratch,
    interlude: &'a Interlude,
}

impl<'a> GraphRun<'a> {
    /// # Safety
    /// Backend, graph and all tensors of the graph live for `'a` and are used by nobody else meanwhile.
    pub(crate) unsafe fn new(
        inner: sys::ggml_backend_t,
        graph: *mut raw::ggml_cgraph,
        scratch: &'a mut Scratch,
        interlude: &'a Interlude,
    ) -> Self {
        scratch.converted.forget();
        Self { inner, graph, scratch, interlude }
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        // SAFETY: the graph is alive (`new`).
        usize::try_from(unsafe { (*self.graph).n_nodes }).unwrap_or(0)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All nodes that use a streamed weight, in order.
    #[must_use]
    pub fn streamed(&self) -> Vec<StreamedOp> {
        (0..self.len())
            .filter_map(|node| {
                // SAFETY: `node` is below n_nodes and every node is alive (`new`).
                unsafe {
                    let tensor = self.node(node);
                    let weight = (*tensor).src[0];
                    if !is_streamed(weight) {
                        return None;
                    }
                    let kind = match (*tensor).op {
                        sys::GGML_OP_MUL_MAT_ID => StreamedKind::Experts,
                        sys::GGML_OP_MUL_MAT => StreamedKind::Dense,
                        _ => StreamedKind::Unsupported,
                    };
                    let ids = match kind {
                        StreamedKind::Experts => (*tensor).src[2] as usize,
                        StreamedKind::Dense | StreamedKind::Unsupported => 0,
                    };
                    Some(StreamedOp { node, weight: WeightId(weight as usize), kind, ids })
                }
            })
            .collect()
    }

    /// The name of a streamed weight, as in the GGUF.
    #[must_use]
    pub fn weight_name(&self, op: StreamedOp) -> String {
        // SAFETY: a StreamedOp comes from this graph; its weight is alive and its name NUL-terminated.
        unsafe { CStr::from_ptr((*(*self.node(op.node)).src[0]).name.as_ptr()) }
            .to_string_lossy()
            .into_owned()
    }

    /// The name of the operation of a node, for messages.
    #[must_use]
    pub fn op_name(&self, node: usize) -> String {
        // SAFETY: ggml returns a static string for every operation of a live node.
        unsafe { CStr::from_ptr(sys::ggml_op_desc(self.node(node))) }.to_string_lossy().into_owned()
    }

    /// Runs nodes as they are.
    ///
    /// # Errors
    /// [`ExecError::Backend`] with the status of the inner backend.
    pub fn run(&mut self, range: Range<usize>) -> Result<(), ExecError> {
        if range.is_empty() {
            return Ok(());
        }
        if range.end > self.len() {
            return Err(ExecError::Misuse(format!("nodes {range:?} of a graph of {}", self.len())));
        }
        let (first, end) = (to_int(range.start)?, to_int(range.end)?);
        // SAFETY: the range lies in the live graph; the view borrows its node list for this call only.
        let mut view = unsafe { raw::ggml_graph_view(self.graph, first, end) };
        self.compute(&mut view)
    }

    /// Computes with any of the methods here, doing `work` between nodes, in the thread that computes: every few hundred
    /// microseconds for a token, and never while a node is computed. Its time is time that the other threads wait.
    ///
    /// # Errors
    /// That of `compute`; [`ExecError::Panic`] when `work` panicked.
    pub fn meanwhile<T>(
        &mut self,
        work: &mut dyn FnMut(),
        compute: impl FnOnce(&mut Self) -> Result<T, ExecError>,
    ) -> Result<T, ExecError> {
        let interlude = self.interlude;
        interlude.during(work, || compute(self)).map_err(ExecError::Panic)?
    }

    /// Reads the ids operand of a `MUL_MAT_ID`. The node that makes it must have run.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the node is not a `MUL_MAT_ID` or an id is out of range.
    pub fn moe_ids(&self, op: StreamedOp) -> Result<MoeIds, ExecError> {
        if op.kind != StreamedKind::Experts {
            return Err(ExecError::Misuse(format!("node {} has no expert ids", op.node)));
        }
        // SAFETY: a MUL_MAT_ID has a weight and an I32 ids operand whose data is host memory of ne × nb bytes.
        unsafe {
            let node = self.node(op.node);
            let ids = &*(*node).src[2];
            let expert_count = (*(*node).src[0]).ne[2];
            let (used, tokens) = (to_usize(ids.ne[0])?, to_usize(ids.ne[1])?);
            let mut experts = Vec::with_capacity(used * tokens);
            for token in 0..tokens {
                for slot in 0..used {
                    let at = token * ids.nb[1] + slot * ids.nb[0];
                    let id = ids.data.cast::<u8>().add(at).cast::<i32>().read_unaligned();
                    if id < -1 || i64::from(id) >= expert_count {
                        return Err(ExecError::Misuse(format!("expert {id} of {expert_count}")));
                    }
                    experts.push(id);
                }
            }
            Ok(MoeIds { used, tokens, experts })
        }
    }

    /// Tokens of a `MUL_MAT_ID`, whether or not its ids have been made.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the node is not a `MUL_MAT_ID`.
    pub fn moe_tokens(&self, op: StreamedOp) -> Result<usize, ExecError> {
        if op.kind != StreamedKind::Experts {
            return Err(ExecError::Misuse(format!("node {} has no expert ids", op.node)));
        }
        // SAFETY: a MUL_MAT_ID has an ids operand, which is alive; only its shape is read.
        unsafe { to_usize((*(*self.node(op.node)).src[2]).ne[1]) }
    }

    /// Bytes of one expert's slice (or of the whole matrix of a dense weight).
    #[must_use]
    pub fn slice_bytes(&self, op: StreamedOp) -> usize {
        // SAFETY: the weight of a StreamedOp is alive.
        unsafe {
            let weight = (*self.node(op.node)).src[0];
            match op.kind {
                StreamedKind::Experts => (*weight).nb[2],
                StreamedKind::Dense | StreamedKind::Unsupported => sys::ggml_nbytes(weight),
            }
        }
    }

    /// Runs a whole `MUL_MAT_ID` over a slab; `slots` replaces [`MoeIds::experts`], entry by entry (−1 stays −1).
    ///
    /// # Errors
    /// [`ExecError::Misuse`] on sizes or slots out of range, [`ExecError::Backend`] when the backend fails.
    pub fn run_bound(
        &mut self,
        op: StreamedOp,
        slab: SlabBinding<'_>,
        slots: &[i32],
    ) -> Result<(), ExecError> {
        let slice = self.slice_bytes(op);
        if op.kind != StreamedKind::Experts || !slab.holds(slice) {
            return Err(ExecError::Misuse(format!("a slab of {} bytes is too short", slab.memory.len())));
        }
        if slots.iter().any(|slot| *slot != -1 && !in_range(*slot, slab.slots)) {
            return Err(ExecError::Misuse("a slot number is out of range".to_owned()));
        }
        self.scratch.slots.clear();
        self.scratch.slots.extend_from_slice(slots);
        let node = self.node(op.node);
        // SAFETY: node and operands are alive; lengths were checked above, so the substituted tensors describe memory
        // that exists for this call. The operands are put back before anyone else can look.
        unsafe {
            let (weight, ids) = ((*node).src[0], (*node).src[2]);
            let tokens = to_usize((*ids).ne[1])?;
            let used = to_usize((*ids).ne[0])?;
            if slots.len() != used * tokens {
                return Err(ExecError::Misuse(format!("{} slots for {used}×{tokens} ids", slots.len())));
            }
            let mut bound = bind_slab(weight, slab)?;
            let mut remapped = plain_tensor(ids, self.scratch.slots.as_mut_ptr().cast());
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
    pub fn run_dense(&mut self, op: StreamedOp, weight: &[AtomicU8]) -> Result<(), ExecError> {
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
            let mut bound = bind(original, weight);
            (*node).src[0] = &raw mut bound;
            let outcome = self.run(op.node..op.node + 1);
            (*node).src[0] = original;
            outcome
        }
    }

    /// Computes the nodes that were laid out in scratch memory.
    fn compute_planned(&mut self) -> Result<(), ExecError> {
        // SAFETY: an empty view of the live graph lends its hash set; the node list is ours and lives in scratch.
        let mut graph = unsafe { raw::ggml_graph_view(self.graph, 0, 0) };
        graph.nodes = self.scratch.nodes.as_mut_ptr();
        graph.n_nodes = to_int(self.scratch.nodes.len())?;
        self.compute(&mut graph)
    }

    fn compute(&mut self, graph: &mut raw::ggml_cgraph) -> Result<(), ExecError> {
        // SAFETY: backend and graph are alive; a CPU backend has finished when the call returns.
        let status = unsafe {
            sys::ggml_backend_graph_compute(self.inner, (&raw mut *graph).cast::<sys::ggml_cgraph>())
        };
        if status == STATUS_OK { Ok(()) } else { Err(ExecError::Backend(status)) }
    }

    /// A node by index.
    fn node(&self, index: usize) -> *mut sys::ggml_tensor {
        assert!(index < self.len(), "node {index} of a graph of {}", self.len());
        // SAFETY: the index was checked and the node list is alive (`new`).
        unsafe { *(*self.graph).nodes.add(index) }
    }
}

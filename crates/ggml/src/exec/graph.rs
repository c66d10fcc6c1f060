//! The nodes of a graph: what they are and what they use. Nothing here runs or changes any.

use crate::buffer::is_streamed;
use crate::error::ExecError;
use crate::sys::{self, raw};
use std::ffi::CStr;
use std::marker::PhantomData;

use super::operand::to_usize;

/// Identifies a streamed weight as long as its model lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WeightId(pub(super) usize);

/// What a node does with its streamed weight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamedKind {
    /// `MUL_MAT_ID`: a stack of experts, chosen by ids.
    Experts,
    /// `MUL_MAT`: one matrix.
    Dense,
    /// `GET_ROWS`: a table, of which ids choose rows.
    Rows,
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

/// A `MUL_MAT` with a resident matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MatMul {
    /// Index in the graph.
    pub node: usize,
    /// Its matrix.
    pub weight: WeightId,
}

/// A graph that is alive for `'a`, with all of its tensors.
#[derive(Clone, Copy)]
pub struct Graph<'a> {
    raw: *mut raw::ggml_cgraph,
    alive: PhantomData<&'a ()>,
}

impl Graph<'_> {
    /// # Safety
    /// Graph and tensors live as long as this, and nobody but its owner changes them meanwhile.
    pub(super) unsafe fn new(raw: *mut raw::ggml_cgraph) -> Self {
        Self { raw, alive: PhantomData }
    }

    pub(super) fn raw(self) -> *mut raw::ggml_cgraph {
        self.raw
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(self) -> usize {
        // SAFETY: the graph is alive (`new`).
        usize::try_from(unsafe { (*self.raw).n_nodes }).unwrap_or(0)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// All nodes in order, each with its index.
    fn nodes(&self) -> impl Iterator<Item = (usize, &sys::ggml_tensor)> {
        // SAFETY: the index is below n_nodes, and every node is alive (`new`).
        (0..self.len()).map(|node| (node, unsafe { &*self.node(node) }))
    }

    /// All nodes that use a streamed weight, in order.
    #[must_use]
    pub fn streamed(self) -> Vec<StreamedOp> {
        let op = |(node, tensor): (usize, &sys::ggml_tensor)| {
            let weight = tensor.src[0];
            // SAFETY: operands of a live node are null or alive.
            if !unsafe { is_streamed(weight) } || !is_computed(tensor) {
                return None;
            }
            let (kind, ids) = match tensor.op {
                sys::GGML_OP_MUL_MAT_ID => (StreamedKind::Experts, tensor.src[2] as usize),
                sys::GGML_OP_MUL_MAT => (StreamedKind::Dense, 0),
                sys::GGML_OP_GET_ROWS => (StreamedKind::Rows, tensor.src[1] as usize),
                _ => (StreamedKind::Unsupported, 0),
            };
            Some(StreamedOp { node, weight: WeightId(weight as usize), kind, ids })
        };
        self.nodes().filter_map(op).collect()
    }

    /// The name of a streamed weight, as in the GGUF.
    #[must_use]
    pub fn weight_name(self, op: StreamedOp) -> String {
        // SAFETY: a StreamedOp comes from this graph; its weight is alive and its name NUL-terminated.
        unsafe { CStr::from_ptr((*(*self.node(op.node)).src[0]).name.as_ptr()) }
            .to_string_lossy()
            .into_owned()
    }

    /// The name of the operation of a node, for messages.
    #[must_use]
    pub fn op_name(self, node: usize) -> String {
        // SAFETY: ggml returns a static string for every operation of a live node.
        unsafe { CStr::from_ptr(sys::ggml_op_desc(self.node(node))) }.to_string_lossy().into_owned()
    }

    /// Bytes of one expert's slice, of a row of a table, or of the whole matrix of a dense weight.
    #[must_use]
    pub fn slice_bytes(self, op: StreamedOp) -> usize {
        // SAFETY: the weight of a StreamedOp is alive.
        unsafe {
            let weight = (*self.node(op.node)).src[0];
            match op.kind {
                StreamedKind::Experts => (*weight).nb[2],
                StreamedKind::Rows => (*weight).nb[1],
                StreamedKind::Dense | StreamedKind::Unsupported => sys::ggml_nbytes(weight),
            }
        }
    }

    /// All `MUL_MAT_ID` nodes, streamed or not, in order.
    #[must_use]
    pub fn expert_ops(self) -> Vec<StreamedOp> {
        let experts = self.nodes().filter(|(_, tensor)| tensor.op == sys::GGML_OP_MUL_MAT_ID);
        let op = |(node, tensor): (usize, &sys::ggml_tensor)| StreamedOp {
            node,
            weight: WeightId(tensor.src[0] as usize),
            kind: StreamedKind::Experts,
            ids: tensor.src[2] as usize,
        };
        experts.map(op).collect()
    }

    /// All `MUL_MAT` nodes with a weight as matrix, in order.
    #[must_use]
    pub fn matmuls(self) -> Vec<MatMul> {
        let products = self.nodes().filter(|(_, tensor)| tensor.op == sys::GGML_OP_MUL_MAT);
        let of_weight = |(node, tensor): (usize, &sys::ggml_tensor)| {
            let weight = tensor.src[0];
            // SAFETY: a product has a matrix, which is alive with its node.
            let is_weight = unsafe { (*weight).op } == sys::GGML_OP_NONE;
            is_weight.then_some(MatMul { node, weight: WeightId(weight as usize) })
        };
        products.filter_map(of_weight).collect()
    }

    /// The name of the weight of a node.
    #[must_use]
    pub fn matrix_name(self, matmul: MatMul) -> String {
        self.weight_name(StreamedOp {
            node: matmul.node,
            weight: matmul.weight,
            kind: StreamedKind::Dense,
            ids: 0,
        })
    }

    /// Tokens of a `MUL_MAT_ID`, whether or not its ids have been made.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the node is not a `MUL_MAT_ID`.
    pub fn moe_tokens(self, op: StreamedOp) -> Result<usize, ExecError> {
        Ok(self.ids_shape(op)?.1)
    }

    /// Experts per token and tokens of a `MUL_MAT_ID`.
    pub(super) fn ids_shape(self, op: StreamedOp) -> Result<(usize, usize), ExecError> {
        if op.kind != StreamedKind::Experts {
            return Err(ExecError::Misuse(format!("node {} has no expert ids", op.node)));
        }
        // SAFETY: a MUL_MAT_ID has an ids operand, which is alive; only its shape is read.
        unsafe {
            let ids = &*(*self.node(op.node)).src[2];
            Ok((to_usize(ids.ne[0])?, to_usize(ids.ne[1])?))
        }
    }

    /// A node by index.
    pub(super) fn node(self, index: usize) -> *mut sys::ggml_tensor {
        assert!(index < self.len(), "node {index} of a graph of {}", self.len());
        // SAFETY: the index was checked and the node list is alive (`new`).
        unsafe { *(*self.raw).nodes.add(index) }
    }
}

/// Whether a node is of the branch that this graph takes: llama.cpp builds the ways to its input as branches
/// (tokens, or rows of embeddings), and backends pass over the others, whose inputs nobody has set.
const fn is_computed(node: &sys::ggml_tensor) -> bool {
    node.flags.cast_unsigned() & sys::GGML_TENSOR_FLAG_COMPUTE != 0
}

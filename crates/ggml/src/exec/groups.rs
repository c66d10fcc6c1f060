//! Where a graph may be cut between products with streamed matrices, so that no two nodes that a backend
//! computes as one come to lie in different calls.
//!
//! Backends fuse a product with what follows it (a bias, a residual), norms with what follows them, and
//! neighbouring products of one input (gate and up with their activation). Nothing is fused into the front of
//! the first product of an input: that is where a call may begin.

use crate::sys;
use std::ops::Range;

use super::graph::{Graph, StreamedOp};

/// Products that are computed in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductGroup {
    /// Which of the streamed nodes.
    pub ops: Range<usize>,
    /// All nodes of the call. The groups of a graph have each of its nodes once.
    pub nodes: Range<usize>,
}

impl Graph<'_> {
    /// Divides a graph between products with streamed matrices. Products of one input are together, as far as
    /// a group has at most `most` of them, which is at least 1.
    #[must_use]
    pub fn product_groups(self, ops: &[StreamedOp], most: usize) -> Vec<ProductGroup> {
        let mut groups: Vec<ProductGroup> = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| ops[before].node);
            let start = self.first_of_input(op.node, before.unwrap_or(0));
            match groups.last_mut() {
                Some(group) if before.is_some_and(|before| start <= before) => {
                    if group.ops.len() < most {
                        group.ops.end = index + 1;
                    } else {
                        group.nodes.end = op.node;
                        groups.push(ProductGroup { ops: index..index + 1, nodes: op.node..self.len() });
                    }
                }
                Some(group) => {
                    group.nodes.end = start;
                    groups.push(ProductGroup { ops: index..index + 1, nodes: start..self.len() });
                }
                None => groups.push(ProductGroup { ops: 0..1, nodes: 0..self.len() }),
            }
        }
        groups
    }

    /// The first of the neighbouring products that have the input of this one, not before `floor`.
    fn first_of_input(self, node: usize, floor: usize) -> usize {
        // SAFETY: nodes and their operands are alive (`Graph::new`); a product has two operands.
        let input = unsafe { (*self.node(node)).src[1] };
        let mut first = node;
        for before in (floor..node).rev() {
            // SAFETY: as above; operands are null or alive.
            let (tensor, operand) = unsafe {
                let tensor = &*self.node(before);
                (tensor, tensor.src[0].as_ref())
            };
            let product = match (tensor.op, operand) {
                (sys::GGML_OP_MUL_MAT, _) => tensor,
                // Its bias.
                (sys::GGML_OP_ADD, Some(operand)) if operand.op == sys::GGML_OP_MUL_MAT => operand,
                (op, _) if is_view(op) => continue,
                _ => break,
            };
            if product.src[1] != input {
                break;
            }
            if tensor.op == sys::GGML_OP_MUL_MAT {
                first = before;
            }
        }
        first
    }
}

/// Whether it computes nothing.
const fn is_view(op: sys::ggml_op) -> bool {
    matches!(
        op,
        sys::GGML_OP_NONE
            | sys::GGML_OP_RESHAPE
            | sys::GGML_OP_VIEW
            | sys::GGML_OP_PERMUTE
            | sys::GGML_OP_TRANSPOSE
    )
}

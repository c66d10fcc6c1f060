//! Asking the next layer's router early.

use super::graph::{Graph, MatMul};
use super::memory::{is_host, require_host};
use super::operand::{lay_out, plain_tensor, to_usize};
use super::run::GraphRun;
use super::scratch::Scratch;
use crate::error::ExecError;
use crate::sys;

impl MatMul {
    /// Whether the input of a product with a resident matrix is the product of something normalised with the
    /// weights of its norm, as `lookahead` can exchange them.
    #[must_use]
    pub fn is_normalised(self, graph: Graph<'_>) -> bool {
        let node = graph.node(self.node);
        // SAFETY: node and operands are alive; `norm_weights` checks what it reads.
        unsafe {
            let weight = &*(*node).src[0];
            let columns = usize::try_from(weight.ne[0]).unwrap_or(0);
            !crate::buffer::is_streamed(weight) && norm_weights((*node).src[1], columns).is_some()
        }
    }

    /// Applies the matrices of `later` to the input of this one, which must have been computed and not yet
    /// been overwritten: the scores of later routers for the hidden state of today, each `tokens` rows of one
    /// score per expert. Where the inputs are normalised with weights of their own, its own are exchanged for
    /// those of the later one.
    ///
    /// # Errors
    /// [`ExecError::Misuse`] when the shapes do not fit each other.
    pub fn lookahead(self, run: &mut GraphRun<'_>, later: &[MatMul]) -> Result<Vec<Vec<f32>>, ExecError> {
        let now = run.graph().node(self.node);
        let later: Vec<_> = later.iter().map(|matmul| run.graph().node(matmul.node)).collect();
        run.scratch.input.clear();
        let mut shapes = Vec::with_capacity(later.len());
        for next in &later {
            // SAFETY: both nodes and their operands are alive.
            shapes.push(unsafe { router_input(now, *next, &mut run.scratch.input)? });
        }
        let total = shapes.iter().map(|shape| shape.tokens * shape.scores).sum();
        let Scratch { input, output, tensors, nodes, routers, .. } = &mut *run.scratch;
        output.resize(output.len().max(total), 0.0);
        tensors.clear();
        nodes.clear();
        // No reallocation below: the tensors point at each other.
        tensors.reserve_exact(3 * later.len());
        let (mut from, mut to) = (0, 0);
        for (next, shape) in later.iter().zip(&shapes) {
            // SAFETY: the substituted tensors describe scratch memory of the sizes just made; `tensors` does
            // not reallocate.
            unsafe {
                let mut rows = plain_tensor((*now).src[1], input.as_mut_ptr().add(from).cast());
                lay_out(&mut rows, [shape.columns, shape.tokens, 1])?;
                let mut scores = plain_tensor(*next, output.as_mut_ptr().add(to).cast());
                lay_out(&mut scores, [shape.scores, shape.tokens, 1])?;
                let base = tensors.as_mut_ptr().add(tensors.len());
                let router = routers.of(scores.src[0]);
                scores.src[1] = base;
                tensors.extend([rows, scores]);
                nodes.push(base.add(1));
                if let Some(router) = router {
                    (*base.add(1)).src[0] = base.add(2);
                    tensors.push(router);
                }
            }
            from += shape.columns * shape.tokens;
            to += shape.scores * shape.tokens;
        }
        run.compute_planned()?;
        let mut rest = run.scratch.output.as_slice();
        Ok(shapes
            .iter()
            .map(|shape| {
                let (scores, others) = rest.split_at(shape.tokens * shape.scores);
                rest = others;
                scores.to_vec()
            })
            .collect())
    }
}

#[derive(Clone, Copy)]
struct RouterShape {
    columns: usize,
    tokens: usize,
    scores: usize,
}

/// Appends the input of the router `now`, as the router `next` would have it, to `input`.
///
/// # Safety
/// Both nodes and their operands are alive, and the input of `now` has been computed.
unsafe fn router_input(
    now: *const sys::ggml_tensor,
    next: *const sys::ggml_tensor,
    input: &mut Vec<f32>,
) -> Result<RouterShape, ExecError> {
    // SAFETY: the caller's promise; the input of `now` holds `columns` floats per row at stride nb[1]; norm
    // weights are leafs in host memory.
    unsafe {
        let source = &*(*now).src[1];
        require_host(source)?;
        require_host((*next).src[0])?;
        let matrix = &*(*next).src[0];
        let fits = source.type_ == sys::GGML_TYPE_F32
            && source.nb[0] == 4
            && source.ne[0] == matrix.ne[0]
            && source.ne[2] == 1
            && (*next).type_ == sys::GGML_TYPE_F32;
        if !fits {
            return Err(ExecError::Misuse("the next router has another input".to_owned()));
        }
        let (columns, tokens) = (to_usize(source.ne[0])?, to_usize(source.ne[1])?);
        let exchange = norm_exchange(now, next, columns);
        for token in 0..tokens {
            let row = source.data.cast::<u8>().add(token * source.nb[1]).cast::<f32>();
            let row = std::slice::from_raw_parts(row, columns);
            match &exchange {
                Some(scale) => input.extend(row.iter().zip(scale).map(|(x, s)| x * s)),
                None => input.extend_from_slice(row),
            }
        }
        Ok(RouterShape { columns, tokens, scores: to_usize(matrix.ne[1])? })
    }
}

/// What to multiply a normalised input with, to have it as if normalised with the weights of another layer.
///
/// # Safety
/// Both nodes and their operands are alive.
unsafe fn norm_exchange(
    now: *const sys::ggml_tensor,
    next: *const sys::ggml_tensor,
    columns: usize,
) -> Option<Vec<f32>> {
    // SAFETY: the caller's promise; `norm_weights` checks what it reads.
    let (now, next) =
        unsafe { (norm_weights((*now).src[1], columns)?, norm_weights((*next).src[1], columns)?) };
    Some(exchange(now, next))
}

/// What turns something normalised with `now` into the same normalised with `next`.
pub(super) fn exchange(now: &[f32], next: &[f32]) -> Vec<f32> {
    let ratio = |(now, next): (&f32, &f32)| if now.abs() > 1e-6 { next / now } else { 1.0 };
    now.iter().zip(next).map(ratio).collect()
}

/// The weights that a normalised tensor was multiplied with, if it is of that form and they are in host
/// memory.
///
/// # Safety
/// `tensor` and its operands are alive for `'a`.
unsafe fn norm_weights<'a>(tensor: *const sys::ggml_tensor, columns: usize) -> Option<&'a [f32]> {
    // SAFETY: the caller vouches for the chain of operands; the weight has `columns` contiguous floats
    // (`norm_operand`) in host memory, which is checked.
    unsafe {
        let weight = norm_operand(tensor, columns)?;
        is_host(weight).then(|| std::slice::from_raw_parts((*weight).data.cast::<f32>(), columns))
    }
}

/// The tensor of those weights, wherever it is: `columns` contiguous floats.
///
/// # Safety
/// `tensor` and its operands are alive.
pub(super) unsafe fn norm_operand(
    mut tensor: *const sys::ggml_tensor,
    columns: usize,
) -> Option<*const sys::ggml_tensor> {
    // SAFETY: the caller vouches for the chain of operands.
    unsafe {
        while matches!((*tensor).op, sys::GGML_OP_RESHAPE | sys::GGML_OP_VIEW) && !(*tensor).src[0].is_null()
        {
            tensor = (*tensor).src[0];
        }
        if (*tensor).op != sys::GGML_OP_MUL {
            return None;
        }
        let weight = (*tensor).src[1];
        let usable = (*weight).op == sys::GGML_OP_NONE
            && (*weight).type_ == sys::GGML_TYPE_F32
            && (*weight).ne[0] == i64::try_from(columns).ok()?
            && (*weight).ne[1] == 1
            && (*weight).nb[0] == size_of::<f32>()
            && !(*weight).data.is_null()
            && !crate::buffer::is_streamed(weight);
        usable.then_some(weight.cast_const())
    }
}

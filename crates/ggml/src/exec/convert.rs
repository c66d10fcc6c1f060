//! The input of an expert layer in the form that its kernels want (blocks of 8-bit numbers), made once for
//! all of a prompt's tokens: each token uses several experts, and each product would convert its rows anew.
//! Rows in that form are also a third as long to gather.
//!
//! The conversion takes the flags of the node that it is for: an input that came from another device is a
//! leaf, and ggml computes only what is marked.
//!
//! Bits do not depend on it: blocks are converted one by one and by the same function.

use super::graph::StreamedOp;
use super::operand::{lay_out, plain_tensor, to_usize};
use super::run::GraphRun;
use super::scratch::{RowForm, Scratch};
use crate::error::ExecError;
use crate::sys;

/// Fewer rows than this are not worth a call of their own.
const FEWEST_ROWS: usize = 128;

/// Converts the input of a `MUL_MAT_ID`, unless that was done or does not pay. True when
/// `scratch.converted` holds it: row `token × broadcast + slot` of the input at that position.
pub(super) fn convert_input(run: &mut GraphRun<'_>, op: StreamedOp, rows: usize) -> Result<bool, ExecError> {
    let node = run.graph().node(op.node);
    // SAFETY: node and operands are alive; the table of CPU kernels covers all types.
    let (input, columns, ty) = unsafe {
        let input = (*node).src[1];
        let kernels = sys::ggml_get_type_traits_cpu((*(*node).src[0]).type_);
        if kernels.is_null() {
            return Ok(false);
        }
        (input, to_usize((*input).ne[0])?, (*kernels).vec_dot_type)
    };
    let of = (input as usize, ty);
    if run.scratch.converted.of == Some(of) {
        return Ok(true);
    }
    let Some(form) = row_form(ty, columns) else { return Ok(false) };
    // SAFETY: as above.
    let contiguous = unsafe { sys::ggml_is_contiguous(input) };
    if rows < FEWEST_ROWS || !contiguous {
        return Ok(false);
    }
    let Scratch { converted, tensors, nodes, .. } = &mut *run.scratch;
    converted.words.resize(converted.words.len().max(rows * form.words), 0.0);
    tensors.clear();
    nodes.clear();
    // No reallocation below: the tensors point at each other.
    tensors.reserve_exact(2);
    // SAFETY: the input is alive and contiguous, so that it is `rows` rows of `columns` floats; the
    // result has room for as many rows of `form`.
    unsafe {
        let mut source = plain_tensor(input, (*input).data.cast());
        lay_out(&mut source, [columns, rows, 1])?;
        let mut result = plain_tensor(input, converted.words.as_mut_ptr().cast());
        (result.type_, result.flags) = (ty, (*node).flags);
        lay_out(&mut result, [columns, rows, 1])?;
        result.op = sys::GGML_OP_CPY;
        let base = tensors.as_mut_ptr();
        result.src = [std::ptr::null_mut(); 10];
        result.src[0] = base;
        tensors.extend([source, result]);
        nodes.push(base.add(1));
    }
    run.compute_planned()?;
    let converted = &mut run.scratch.converted;
    converted.of = Some(of);
    converted.form = form;
    Ok(true)
}

/// The form of rows of `columns` numbers of a type; `None` where it has none that can be made here.
fn row_form(ty: sys::ggml_type, columns: usize) -> Option<RowForm> {
    let count = i64::try_from(columns).ok()?;
    // SAFETY: `ty` is a type of ggml's own table; whole blocks are checked before the size of a row is asked
    // for.
    unsafe {
        let block = sys::ggml_blck_size(ty);
        let whole = sys::ggml_is_quantized(ty) && block > 0 && count % block == 0;
        let bytes = if whole { sys::ggml_row_size(ty, count) } else { return None };
        bytes.is_multiple_of(4).then_some(RowForm { ty, words: bytes / 4 })
    }
}

//! The input of an expert layer in the form that its kernels want (blocks of 8-bit numbers), made once for all of a
//! prompt's tokens: each token uses several experts, and each product would convert its rows anew. Rows in that form are
//! also a third as long to gather.
//!
//! Bits do not depend on it: blocks are converted one by one and by the same function.

use crate::error::ExecError;
use crate::graph::operand::{plain_tensor, to_int, to_usize};
use crate::graph::{GraphRun, StreamedOp};
use crate::sys::{self, raw};

/// Fewer rows than this are not worth a call of their own.
const FEWEST_ROWS: usize = 128;

/// The input of one node in another type, until the graph ends or another input is converted.
#[derive(Default)]
pub(crate) struct Converted {
    /// The tensor that was converted, and into what; 0 for none.
    of: (usize, sys::ggml_type),
    /// Its rows, one after the other. Blocks of these types are made of whole words of four bytes.
    pub(super) words: Vec<f32>,
    pub(super) form: RowForm,
}

/// How one row looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowForm {
    pub ty: sys::ggml_type,
    /// Words of four bytes in a row.
    pub words: usize,
}

impl Converted {
    /// What was converted is of a graph that is over.
    pub fn forget(&mut self) {
        self.of = (0, 0);
    }
}

impl GraphRun<'_> {
    /// Converts the input of a `MUL_MAT_ID`, unless that was done or does not pay. True when `scratch.converted` holds it:
    /// row `token × broadcast + slot` of the input at that position.
    pub(super) fn convert_input(&mut self, op: StreamedOp, rows: usize) -> Result<bool, ExecError> {
        let node = self.node(op.node);
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
        if self.scratch.converted.of == of {
            return Ok(true);
        }
        let Some(form) = row_form(ty, columns) else { return Ok(false) };
        // SAFETY: as above.
        let contiguous = unsafe { sys::ggml_is_contiguous(input) };
        if rows < FEWEST_ROWS || !contiguous {
            return Ok(false);
        }
        let converted = &mut self.scratch.converted;
        converted.words.resize(converted.words.len().max(rows * form.words), 0.0);
        // SAFETY: the input is alive and contiguous, so that it is `rows` rows of `columns` floats; the result has room for
        // as many rows of `form`. The node list and both tensors live until the call is over.
        unsafe {
            let mut source = plain_tensor(input, (*input).data.cast());
            shape_rows(&mut source, columns, rows, 4, 4 * columns)?;
            let mut result = plain_tensor(input, converted.words.as_mut_ptr().cast());
            result.type_ = ty;
            shape_rows(&mut result, columns, rows, sys::ggml_type_size(ty), 4 * form.words)?;
            result.op = sys::GGML_OP_CPY;
            result.src = [std::ptr::null_mut(); 10];
            result.src[0] = &raw mut source;
            let mut nodes = [&raw mut result];
            let mut graph = raw::ggml_graph_view(self.graph, 0, 0);
            graph.nodes = nodes.as_mut_ptr();
            graph.n_nodes = to_int(nodes.len())?;
            self.compute(&mut graph)?;
        }
        let converted = &mut self.scratch.converted;
        converted.of = of;
        converted.form = form;
        Ok(true)
    }
}

/// The form of rows of `columns` numbers of a type; `None` where it has none that can be made here.
fn row_form(ty: sys::ggml_type, columns: usize) -> Option<RowForm> {
    // SAFETY: `ty` is a type of ggml's own table.
    let (quantized, block, block_bytes) = unsafe {
        (sys::ggml_is_quantized(ty), usize::try_from(sys::ggml_blck_size(ty)).ok()?, sys::ggml_type_size(ty))
    };
    let whole = quantized && block > 0 && columns.is_multiple_of(block);
    let bytes = if whole { columns / block * block_bytes } else { return None };
    bytes.is_multiple_of(4).then_some(RowForm { ty, words: bytes / 4 })
}

/// Gives a tensor the shape of a matrix.
fn shape_rows(
    tensor: &mut sys::ggml_tensor,
    columns: usize,
    rows: usize,
    element: usize,
    row: usize,
) -> Result<(), ExecError> {
    tensor.ne = [i64::from(to_int(columns)?), i64::from(to_int(rows)?), 1, 1];
    tensor.nb = [element, row, row * rows, row * rows];
    Ok(())
}

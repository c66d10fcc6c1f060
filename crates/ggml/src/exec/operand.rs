//! Stand-ins for operands: copies of ggml tensors that point at other memory, and checked conversions of
//! sizes.

use crate::error::ExecError;
use crate::sys;

/// A copy of a tensor with other data, in no buffer, a view of nothing.
///
/// # Safety
/// `tensor` is alive.
pub(super) unsafe fn plain_tensor(tensor: *const sys::ggml_tensor, data: *mut u8) -> sys::ggml_tensor {
    // SAFETY: the caller vouches for the tensor; ggml_tensor is plain data.
    let mut copy = unsafe { *tensor };
    copy.data = data.cast();
    copy.buffer = std::ptr::null_mut();
    copy.view_src = std::ptr::null_mut();
    copy.view_offs = 0;
    copy.extra = std::ptr::null_mut();
    copy
}

/// Gives a tensor a contiguous shape. Rows are whole blocks of its type.
pub(super) fn lay_out(tensor: &mut sys::ggml_tensor, shape: [usize; 3]) -> Result<(), ExecError> {
    let [columns, rows, planes] = shape;
    tensor.ne = [to_i64(columns)?, to_i64(rows)?, to_i64(planes)?, 1];
    // SAFETY: a tensor has a type of ggml's own table.
    let (element, row) =
        unsafe { (sys::ggml_type_size(tensor.type_), sys::ggml_row_size(tensor.type_, tensor.ne[0])) };
    tensor.nb = [element, row, row * rows, row * rows * planes];
    Ok(())
}

pub(super) fn in_range(slot: i32, slots: usize) -> bool {
    usize::try_from(slot).is_ok_and(|slot| slot < slots)
}

pub(super) fn to_int(value: usize) -> Result<i32, ExecError> {
    i32::try_from(value).map_err(|_| ExecError::Misuse(format!("{value} is too large for ggml")))
}
pub(super) fn to_i64(value: usize) -> Result<i64, ExecError> {
    i64::try_from(value).map_err(|_| ExecError::Misuse(format!("{value} is too large for ggml")))
}
pub(super) fn to_usize(value: i64) -> Result<usize, ExecError> {
    usize::try_from(value).map_err(|_| ExecError::Misuse(format!("a dimension of {value}")))
}

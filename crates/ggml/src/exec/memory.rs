//! Operands whose bytes are read or written here: that takes host memory, which is checked each time.

use crate::error::ExecError;
use crate::sys;
use std::ffi::CStr;

/// Whether the bytes of a tensor are host memory. A stand-in of ours lies in no buffer, and in memory of
/// ours.
///
/// # Safety
/// `tensor` is alive, and so is the buffer that it names.
pub(super) unsafe fn is_host(tensor: *const sys::ggml_tensor) -> bool {
    // SAFETY: the caller's promise; a view's bytes are in the buffer of what it views.
    unsafe {
        let viewed = (*tensor).view_src;
        let buffer = if viewed.is_null() { (*tensor).buffer } else { (*viewed).buffer };
        buffer.is_null() || sys::ggml_backend_buffer_is_host(buffer)
    }
}

/// Refuses a tensor whose bytes are not host memory, or that has none.
///
/// # Safety
/// As [`is_host`].
pub(super) unsafe fn require_host(tensor: *const sys::ggml_tensor) -> Result<(), ExecError> {
    // SAFETY: the caller's promise; the name is NUL-terminated.
    unsafe {
        if is_host(tensor) && !(*tensor).data.is_null() {
            return Ok(());
        }
        let name = CStr::from_ptr((*tensor).name.as_ptr()).to_string_lossy();
        Err(ExecError::Misuse(format!("tensor {name} is not in host memory")))
    }
}

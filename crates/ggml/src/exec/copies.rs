//! Routers in 8 bits, for guessing only: a router in floats is a megabyte or ten that each guess would fetch
//! from memory anew. What is lost decides between experts that are as good as equal.

use super::memory::is_host;
use super::operand::{lay_out, plain_tensor, to_usize};
use crate::sys;
use std::collections::HashMap;

/// Copies of routers by the address of the original, which lives as long as its model.
#[derive(Default)]
pub(crate) struct RouterCopies {
    by_weight: HashMap<usize, Option<Vec<u8>>>,
}

impl RouterCopies {
    /// A stand-in for a router: its copy, made the first time; `None` where the original is not a matrix of
    /// floats in memory.
    ///
    /// # Safety
    /// `weight` is alive.
    pub(super) unsafe fn of(&mut self, weight: *const sys::ggml_tensor) -> Option<sys::ggml_tensor> {
        // SAFETY: the caller's promise.
        let copy = self.by_weight.entry(weight as usize).or_insert_with(|| unsafe { quantised(weight) });
        let data = copy.as_mut()?.as_mut_ptr();
        // SAFETY: the caller's promise. The copy has `ne[1]` rows of the type.
        unsafe {
            let mut stand_in = plain_tensor(weight, data);
            stand_in.type_ = sys::GGML_TYPE_Q8_0;
            let (columns, rows) = (to_usize(stand_in.ne[0]).ok()?, to_usize(stand_in.ne[1]).ok()?);
            lay_out(&mut stand_in, [columns, rows, 1]).ok()?;
            Some(stand_in)
        }
    }
}

/// # Safety
/// As [`RouterCopies::of`].
unsafe fn quantised(weight: *const sys::ggml_tensor) -> Option<Vec<u8>> {
    // SAFETY: the caller's promise; the matrix is contiguous floats in host memory, which is checked, and the
    // result has room for as many rows of the type.
    unsafe {
        let tensor = &*weight;
        let known = tensor.type_ == sys::GGML_TYPE_F32
            && tensor.ne[0] % sys::ggml_blck_size(sys::GGML_TYPE_Q8_0) == 0
            && tensor.ne[2] == 1
            && tensor.ne[3] == 1
            && !tensor.data.is_null()
            && is_host(weight)
            && sys::ggml_is_contiguous(weight)
            && !crate::buffer::is_streamed(weight);
        if !known {
            return None;
        }
        let row = sys::ggml_row_size(sys::GGML_TYPE_Q8_0, tensor.ne[0]);
        let mut bytes = vec![0u8; row * usize::try_from(tensor.ne[1]).ok()?];
        let written = sys::ggml_quantize_chunk(
            sys::GGML_TYPE_Q8_0,
            tensor.data.cast(),
            bytes.as_mut_ptr().cast(),
            0,
            tensor.ne[1],
            tensor.ne[0],
            std::ptr::null(),
        );
        (written == bytes.len()).then_some(bytes)
    }
}

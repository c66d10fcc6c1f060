//! What one of our buffer types is of.

use crate::device::Device;
use crate::sys::{self, raw};
use std::ffi::CString;
use std::sync::Arc;

use super::notes::Notes;

/// Where a weight's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WeightMemory {
    /// Nowhere in particular: the executor of the device binds memory for the length of one operation.
    Streamed,
    /// In memory of the device, filled by the engine before the first use.
    Resident,
}

/// What the context pointer of our buffer types points to.
pub(crate) struct TypeContext {
    pub name: CString,
    pub device: Device,
    pub notes: Arc<Notes>,
}

/// What one of our buffer types is of.
///
/// # Safety
/// `buft` is alive and one of ours.
pub(crate) unsafe fn context_of<'a>(buft: sys::ggml_backend_buffer_type_t) -> &'a TypeContext {
    // SAFETY: the caller's promise: `types` made it, with a context that lives as long.
    unsafe { &*(*buft.cast::<raw::ggml_backend_buffer_type>()).context.cast::<TypeContext>() }
}

//! Our two buffer types.
//!
//! `Streamed` holds no memory at all: its tensors have a name and a shape, and the executor supplies bytes when a node
//! needs them. `Resident` is host memory whose content is not copied by llama.cpp but noted, so that the engine can
//! read it from the file in parallel by direct I/O. Both live for the whole process, as ggml expects of buffer types.

use crate::buffer;
use crate::sys::{self, raw};
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

/// Which of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Streamed,
    Resident,
}

struct Registered(*mut raw::ggml_backend_buffer_type);
// SAFETY: the object is written once, before it is shared, and only read afterwards.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

static STREAMED: OnceLock<Registered> = OnceLock::new();
static RESIDENT: OnceLock<Registered> = OnceLock::new();

/// Creates both types for our device. Called once, while the device is registered.
pub(crate) fn create(device: sys::ggml_backend_dev_t) {
    for (kind, cell) in [(Kind::Streamed, &STREAMED), (Kind::Resident, &RESIDENT)] {
        cell.get_or_init(|| {
            let object = raw::ggml_backend_buffer_type {
                iface: interface(kind),
                device,
                context: std::ptr::null_mut(),
            };
            Registered(Box::into_raw(Box::new(object)))
        });
    }
}

/// The handle for llama.cpp, `None` before [`create`].
pub(crate) fn handle(kind: Kind) -> Option<sys::ggml_backend_buffer_type_t> {
    let cell = match kind {
        Kind::Streamed => &STREAMED,
        Kind::Resident => &RESIDENT,
    };
    cell.get().map(|registered| registered.0.cast())
}

/// Whether a buffer type is one of ours.
pub(crate) fn kind_of(buft: sys::ggml_backend_buffer_type_t) -> Option<Kind> {
    [Kind::Streamed, Kind::Resident].into_iter().find(|kind| handle(*kind) == Some(buft))
}

/// Whether a tensor lies in a `Streamed` buffer.
///
/// # Safety
/// `tensor` is null or points to a live tensor.
pub(crate) unsafe fn is_streamed(tensor: *const sys::ggml_tensor) -> bool {
    // SAFETY: the caller vouches for the tensor; its buffer, when set, outlives it.
    unsafe {
        !tensor.is_null()
            && !(*tensor).buffer.is_null()
            && kind_of(sys::ggml_backend_buffer_get_type((*tensor).buffer)) == Some(Kind::Streamed)
    }
}

fn interface(kind: Kind) -> raw::ggml_backend_buffer_type_i {
    match kind {
        Kind::Streamed => raw::ggml_backend_buffer_type_i {
            get_name: Some(streamed_name),
            alloc_buffer: Some(buffer::alloc_streamed),
            alloc_buffer_n: None,
            get_alignment: Some(alignment),
            get_max_size: None,
            get_alloc_size: None,
            get_alloc_size_n: None,
            is_host: Some(no),
        },
        Kind::Resident => raw::ggml_backend_buffer_type_i {
            get_name: Some(resident_name),
            alloc_buffer: Some(buffer::alloc_resident),
            alloc_buffer_n: None,
            get_alignment: Some(alignment),
            get_max_size: None,
            get_alloc_size: None,
            get_alloc_size_n: None,
            is_host: Some(yes),
        },
    }
}

const STREAMED_NAME: &CStr = c"Hypura_Streamed";
const RESIDENT_NAME: &CStr = c"Hypura_Resident";

unsafe extern "C" fn streamed_name(_: sys::ggml_backend_buffer_type_t) -> *const c_char {
    STREAMED_NAME.as_ptr()
}
unsafe extern "C" fn resident_name(_: sys::ggml_backend_buffer_type_t) -> *const c_char {
    RESIDENT_NAME.as_ptr()
}
unsafe extern "C" fn alignment(_: sys::ggml_backend_buffer_type_t) -> usize {
    // The alignment of ggml's own CPU buffer type (one AVX-512 register, one cache line).
    64
}
unsafe extern "C" fn yes(_: sys::ggml_backend_buffer_type_t) -> bool {
    true
}
unsafe extern "C" fn no(_: sys::ggml_backend_buffer_type_t) -> bool {
    false
}

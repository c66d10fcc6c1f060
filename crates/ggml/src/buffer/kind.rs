//! The two kinds of memory that weights can be in, as ggml's buffer types.
//!
//! `Streamed` holds no memory at all: its tensors have a name and a shape, and the executor supplies bytes
//! when a node needs them. `Resident` is memory of the device whose content is not copied by llama.cpp but
//! noted, so that the engine can read it from the file in parallel by direct I/O.
//!
//! A buffer type is known by its `alloc_buffer`, as ggml's own backends know theirs by a function: there is
//! one object for each kind, device and load ([`super::types`]), and the functions are what they share.

use crate::device::Device;
use crate::sys::{self, raw};
use std::ffi::{CString, c_char};

use super::context::{WeightMemory, context_of};
use super::{resident, streamed};

/// Which of our kinds a buffer type is; `None` for those of others.
pub(crate) fn kind_of(buft: sys::ggml_backend_buffer_type_t) -> Option<WeightMemory> {
    if buft.is_null() {
        return None;
    }
    // SAFETY: ggml hands out live buffer types only, and their layout is the one that was linked.
    let alloc = unsafe { (*buft.cast::<raw::ggml_backend_buffer_type>()).iface.alloc_buffer }? as usize;
    let ours: [(usize, WeightMemory); 2] = [
        (streamed::alloc as *const () as usize, WeightMemory::Streamed),
        (resident::alloc as *const () as usize, WeightMemory::Resident),
    ];
    ours.into_iter().find(|(function, _)| *function == alloc).map(|(_, kind)| kind)
}

/// Whether a buffer type is one of ours for this device.
pub(crate) fn belongs_to(buft: sys::ggml_backend_buffer_type_t, device: Device) -> bool {
    // SAFETY: `kind_of` says that it is ours.
    kind_of(buft).is_some() && unsafe { context_of(buft) }.device == device
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
            && kind_of(sys::ggml_backend_buffer_get_type((*tensor).buffer)) == Some(WeightMemory::Streamed)
    }
}

/// The functions of a buffer type of `kind` on `device`.
pub(super) fn interface(kind: WeightMemory, device: Device) -> raw::ggml_backend_buffer_type_i {
    let inner = device.inner_buffer_type_interface();
    let streamed = raw::ggml_backend_buffer_type_i {
        get_name: Some(name),
        alloc_buffer: Some(streamed::alloc),
        alloc_buffer_n: None,
        get_alignment: Some(alignment),
        get_max_size: None,
        get_alloc_size: None,
        get_alloc_size_n: None,
        is_host: None,
    };
    match kind {
        WeightMemory::Streamed => streamed,
        WeightMemory::Resident => raw::ggml_backend_buffer_type_i {
            alloc_buffer: Some(resident::alloc),
            get_max_size: inner.get_max_size.map(|_| max_size as _),
            get_alloc_size: inner.get_alloc_size.map(|_| alloc_size as _),
            is_host: inner.is_host.map(|_| is_host as _),
            ..streamed
        },
    }
}

/// llama.cpp tells buffer types apart by their names, so that each kind and device needs one of its own.
pub(super) fn type_name(kind: WeightMemory, device: Device) -> CString {
    CString::new(format!("Hypura_{kind:?}_{}", device.name())).unwrap_or_default()
}

unsafe extern "C" fn name(buft: sys::ggml_backend_buffer_type_t) -> *const c_char {
    // SAFETY: ggml passes our live buffer type, whose context has its name.
    unsafe { context_of(buft) }.name.as_ptr()
}

/// The buffer type whose memory one of ours is.
///
/// # Safety
/// `buft` is one of ours, and alive.
unsafe fn inner(buft: sys::ggml_backend_buffer_type_t) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: the caller's promise.
    unsafe { context_of(buft) }.device.inner_buffer_type()
}

unsafe extern "C" fn alignment(buft: sys::ggml_backend_buffer_type_t) -> usize {
    /// One AVX-512 register, one cache line: ggml's CPU type would be content with less.
    const LEAST: usize = 64;
    // SAFETY: ggml passes our live buffer type; the inner one lives for the whole process.
    LEAST.max(unsafe { sys::ggml_backend_buft_get_alignment(inner(buft)) })
}
unsafe extern "C" fn max_size(buft: sys::ggml_backend_buffer_type_t) -> usize {
    // SAFETY: as above.
    unsafe { sys::ggml_backend_buft_get_max_size(inner(buft)) }
}
unsafe extern "C" fn alloc_size(
    buft: sys::ggml_backend_buffer_type_t,
    tensor: *const sys::ggml_tensor,
) -> usize {
    // SAFETY: as above; ggml passes a live tensor.
    unsafe { sys::ggml_backend_buft_get_alloc_size(inner(buft), tensor) }
}
unsafe extern "C" fn is_host(buft: sys::ggml_backend_buffer_type_t) -> bool {
    // SAFETY: as above.
    unsafe { sys::ggml_backend_buft_is_host(inner(buft)) }
}

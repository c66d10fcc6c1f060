//! Buffers of our two types.
//!
//! A `Streamed` buffer owns nothing: its base is an address that is never read. A `Resident` buffer wraps a buffer of
//! the inner CPU device; writing a tensor into it only notes that the tensor wants its bytes, because the pointer
//! llama.cpp offers lies in a mapping that must not be touched.

use crate::sys::{self, raw};
use crate::{buffer_type, guard};
use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::AtomicU8;

/// A weight in resident memory that waits for its bytes.
pub(crate) struct Wanted {
    pub name: String,
    pub address: *mut u8,
    pub bytes: usize,
}

impl Wanted {
    /// The memory to fill.
    ///
    /// # Safety
    /// The model that owns the buffer is alive for `'a`.
    pub(crate) unsafe fn cells<'a>(&self) -> &'a [AtomicU8] {
        // SAFETY: `address..address+bytes` was taken from a tensor inside a live resident buffer, which the caller keeps
        // alive; AtomicU8 has the layout of u8 and allows the reader to write while we hold the reference.
        unsafe { std::slice::from_raw_parts(self.address.cast::<AtomicU8>(), self.bytes) }
    }
}

thread_local! {
    /// Tensors noted by the load that runs on this thread: llama.cpp loads on the thread that called it.
    static WANTED: RefCell<Vec<Wanted>> = const { RefCell::new(Vec::new()) };
}

/// Takes what the load on this thread has noted.
pub(crate) fn take_wanted() -> Vec<Wanted> {
    WANTED.with_borrow_mut(std::mem::take)
}

/// Never dereferenced; ggml only wants it not to be null, and aligned.
const NOWHERE: *mut c_void = std::ptr::without_provenance_mut(0x10_0000);

pub(crate) unsafe extern "C" fn alloc_streamed(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    let interface = raw::ggml_backend_buffer_i {
        free_buffer: None,
        get_base: Some(nowhere),
        init_tensor: None,
        memset_tensor: None,
        set_tensor: Some(ignore_set),
        get_tensor: Some(zero_get),
        set_tensor_2d: None,
        get_tensor_2d: None,
        cpy_tensor: None,
        clear: Some(ignore_clear),
        reset: None,
        set_tensor_n: None,
        get_tensor_n: None,
        cpy_tensor_n: None,
    };
    // SAFETY: the interface is complete for a buffer that is never read, and `buft` is ggml's own argument.
    unsafe { raw::ggml_backend_buffer_init(buft.cast(), interface, std::ptr::null_mut(), size).cast() }
}

unsafe extern "C" fn nowhere(_: sys::ggml_backend_buffer_t) -> *mut c_void {
    NOWHERE
}
unsafe extern "C" fn ignore_set(
    _: sys::ggml_backend_buffer_t,
    _: *mut sys::ggml_tensor,
    _: *const c_void,
    _: usize,
    _: usize,
) {
}
unsafe extern "C" fn zero_get(
    _: sys::ggml_backend_buffer_t,
    _: *const sys::ggml_tensor,
    data: *mut c_void,
    _: usize,
    size: usize,
) {
    // SAFETY: ggml passes a destination of `size` bytes. There is nothing to read, and stale bytes would be worse.
    unsafe { std::ptr::write_bytes(data.cast::<u8>(), 0, size) };
}
unsafe extern "C" fn ignore_clear(_: sys::ggml_backend_buffer_t, _: u8) {}

pub(crate) unsafe extern "C" fn alloc_resident(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    let interface = raw::ggml_backend_buffer_i {
        free_buffer: Some(resident_free),
        get_base: Some(resident_base),
        init_tensor: None,
        memset_tensor: Some(resident_memset),
        set_tensor: Some(resident_set),
        get_tensor: Some(resident_get),
        set_tensor_2d: None,
        get_tensor_2d: None,
        cpy_tensor: None,
        clear: Some(resident_clear),
        reset: None,
        set_tensor_n: None,
        get_tensor_n: None,
        cpy_tensor_n: None,
    };
    // SAFETY: the CPU buffer type exists for the whole process; a null result is passed on as ggml's own failure.
    unsafe {
        let inner = sys::ggml_backend_buft_alloc_buffer(sys::ggml_backend_cpu_buffer_type(), size);
        if inner.is_null() {
            return std::ptr::null_mut();
        }
        ask_for_huge_pages(sys::ggml_backend_buffer_get_base(inner), size);
        raw::ggml_backend_buffer_init(buft.cast(), interface, inner.cast(), size).cast()
    }
}

/// Weights are scanned once per token: huge pages spare the TLB. Only advice, so failure does not matter.
pub(crate) fn ask_for_huge_pages(base: *mut c_void, size: usize) {
    #[cfg(target_os = "linux")]
    {
        const HUGE: usize = 2 << 20;
        let start = (base as usize).next_multiple_of(HUGE);
        let end = (base as usize + size) / HUGE * HUGE;
        if end > start {
            // SAFETY: the range lies inside the allocation, and MADV_HUGEPAGE changes no content.
            unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (base, size);
}

/// The inner buffer of one of our resident buffers.
///
/// # Safety
/// `buffer` is a live buffer made by [`alloc_resident`].
unsafe fn inner(buffer: sys::ggml_backend_buffer_t) -> sys::ggml_backend_buffer_t {
    // SAFETY: the caller vouches for the buffer; its context was set to the inner buffer and never changes.
    unsafe { (*buffer.cast::<raw::ggml_backend_buffer>()).context.cast() }
}

unsafe extern "C" fn resident_free(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: ggml frees a buffer once, and we own the inner one.
    unsafe { sys::ggml_backend_buffer_free(inner(buffer)) };
}
unsafe extern "C" fn resident_base(buffer: sys::ggml_backend_buffer_t) -> *mut c_void {
    // SAFETY: `buffer` is ours and alive.
    unsafe { sys::ggml_backend_buffer_get_base(inner(buffer)) }
}
unsafe extern "C" fn resident_memset(
    _: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    value: u8,
    offset: usize,
    size: usize,
) {
    // SAFETY: ggml checked that offset + size lies in the tensor, whose data lies in our host memory.
    unsafe { std::ptr::write_bytes((*tensor).data.cast::<u8>().add(offset), value, size) };
}
unsafe extern "C" fn resident_set(
    _: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    _: *const c_void,
    offset: usize,
    size: usize,
) {
    let _ = guard::catch(|| {
        // SAFETY: ggml passes a live tensor of this buffer, with a NUL-terminated name, and offset + size inside it.
        let wanted = unsafe {
            Wanted {
                name: CStr::from_ptr((*tensor).name.as_ptr()).to_string_lossy().into_owned(),
                address: (*tensor).data.cast::<u8>().add(offset),
                bytes: size,
            }
        };
        WANTED.with_borrow_mut(|list| list.push(wanted));
    });
}
unsafe extern "C" fn resident_get(
    _: sys::ggml_backend_buffer_t,
    tensor: *const sys::ggml_tensor,
    data: *mut c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: ggml checked the range against the tensor; source and destination are distinct host memory.
    unsafe {
        std::ptr::copy_nonoverlapping((*tensor).data.cast::<u8>().add(offset), data.cast::<u8>(), size)
    };
}
unsafe extern "C" fn resident_clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    // SAFETY: `buffer` is ours and alive.
    unsafe { sys::ggml_backend_buffer_clear(inner(buffer), value) };
}

/// Used by supports_buft: our resident memory is ordinary host memory.
pub(crate) fn is_ours(buft: sys::ggml_backend_buffer_type_t) -> bool {
    buffer_type::kind_of(buft).is_some()
}

/// `enum ggml_status` of success, as a plain int.
pub(crate) const STATUS_OK: c_int = 0;
/// `GGML_STATUS_FAILED`.
pub(crate) const STATUS_FAILED: c_int = -1;
/// `GGML_STATUS_ABORTED`.
pub(crate) const STATUS_ABORTED: c_int = 1;

//! Memory of a device whose bytes our reader brings.
//!
//! A resident buffer *is* a buffer of the inner device (kernels of GPUs look into it), but for one function:
//! while a model loads, writing a tensor only notes that the tensor wants its bytes, because the pointer that
//! llama.cpp offers lies in a mapping that must not be touched. [`Interposed::end`] puts the device's own
//! function back.

use crate::guard;
use crate::sys::{self, raw};
use std::ffi::{CStr, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use super::context::context_of;
use super::notes::{Notes, Wanted};

type SetTensor =
    unsafe extern "C" fn(sys::ggml_backend_buffer_t, *mut sys::ggml_tensor, *const c_void, usize, usize);

/// A resident buffer whose `set_tensor` is ours.
struct Entry {
    buffer: usize,
    notes: Arc<Notes>,
    /// The device's own function.
    set_tensor: Option<SetTensor>,
}

/// All resident buffers of loads in progress: ggml's buffers have no room for a pointer of ours.
static INTERPOSED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Resident buffers of a load in progress.
pub(crate) struct Interposed<'a>(&'a Notes);

impl<'a> Interposed<'a> {
    pub fn of(notes: &'a Notes) -> Self {
        Self(notes)
    }

    /// The load is over. Where it succeeded the buffers are alive, and get their own function back; otherwise
    /// they are gone.
    pub fn end(self, alive: bool) {
        let mut all = INTERPOSED.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|entry| {
            if !std::ptr::eq(Arc::as_ptr(&entry.notes), self.0) {
                return true;
            }
            if alive {
                let buffer = entry.buffer as *mut raw::ggml_backend_buffer;
                // SAFETY: the load succeeded, so that its model owns the buffer, and nobody uses it yet.
                unsafe { (*buffer).iface.set_tensor = entry.set_tensor };
            }
            false
        });
    }
}

pub(super) unsafe extern "C" fn alloc(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    // SAFETY: ggml passes our live buffer type. The inner one lives for the whole process, and makes buffers
    // of the layout that was linked; a null result is passed on as ggml's own failure.
    unsafe {
        let context = context_of(buft);
        let buffer = sys::ggml_backend_buft_alloc_buffer(context.device.inner_buffer_type(), size);
        if buffer.is_null() {
            return buffer;
        }
        if sys::ggml_backend_buffer_is_host(buffer) && size > 0 {
            ask_for_huge_pages(sys::ggml_backend_buffer_get_base(buffer), size);
        }
        let functions = &mut (*buffer.cast::<raw::ggml_backend_buffer>()).iface;
        let entry = Entry {
            buffer: buffer as usize,
            notes: Arc::clone(&context.notes),
            set_tensor: functions.set_tensor.replace(note),
        };
        INTERPOSED.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        buffer
    }
}

/// `set_tensor` of a resident buffer while its model loads.
unsafe extern "C" fn note(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    _: *const c_void,
    offset: usize,
    bytes: usize,
) {
    let all = INTERPOSED.lock().unwrap_or_else(PoisonError::into_inner);
    let notes =
        all.iter().find(|entry| entry.buffer == buffer as usize).map(|entry| Arc::clone(&entry.notes));
    drop(all);
    let Some(notes) = notes else { return };
    let noted = guard::catch(|| {
        // SAFETY: ggml passes a live tensor of this live buffer, with a NUL-terminated name, and offset +
        // bytes inside it.
        let wanted = unsafe {
            Wanted {
                name: CStr::from_ptr((*tensor).name.as_ptr()).to_string_lossy().into_owned(),
                tensor,
                is_host: sys::ggml_backend_buffer_is_host(buffer),
                offset,
                bytes,
            }
        };
        notes.want(wanted);
    });
    if let Err(panic) = noted {
        notes.fail(panic);
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

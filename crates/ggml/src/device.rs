//! The decorated CPU device: registered in place of ggml's own, forwarding everything to it except what concerns our
//! buffer types.
//!
//! Two lies are told on purpose. `supports_op` says yes to any node with a streamed weight, because the executor will
//! run it on the inner backend with real memory bound. `ggml_backend_cpu_is_numa` answers true, because llama.cpp then
//! maps the model file without reading it ahead: loading 17 GB takes milliseconds and reads nothing.

use crate::error::LoadError;
use crate::sys::{self, raw};
use crate::{abi, backend, buffer, buffer_type};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

/// What the decorated device wraps, and itself. Never freed: ggml keeps devices for the whole process.
pub(crate) struct Decorated {
    inner: sys::ggml_backend_dev_t,
    inner_registry: sys::ggml_backend_reg_t,
    device: *mut raw::ggml_backend_device,
}
// SAFETY: the pointers are to objects that live for the whole process and are never written after registration; ggml
// itself shares them between threads.
unsafe impl Send for Decorated {}
// SAFETY: as above.
unsafe impl Sync for Decorated {}

static DECORATED: OnceLock<Decorated> = OnceLock::new();
static INSTALL: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Puts our device in the place of ggml's CPU device, once per process.
pub(crate) fn install() -> Result<(), LoadError> {
    let _one_at_a_time = INSTALL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if DECORATED.get().is_some() {
        return Ok(());
    }
    // SAFETY: plain queries of ggml's registry; null results are checked.
    let (inner, inner_registry) = unsafe {
        let inner = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        if inner.is_null() {
            return Err(LoadError::NoCpu);
        }
        (inner, sys::ggml_backend_dev_backend_reg(inner))
    };
    // SAFETY: a registry object is never freed. Static registration does not check the version, so we do.
    let found = unsafe { (*inner_registry.cast::<raw::ggml_backend_reg>()).api_version };
    if u32::try_from(found) != Ok(sys::API_VERSION) {
        return Err(LoadError::Interface { found: found.unsigned_abs(), expected: sys::API_VERSION });
    }
    let registry = Box::into_raw(Box::new(abi::registry()));
    let device = Box::into_raw(Box::new(abi::device(registry.cast())));
    let decorated = Decorated { inner, inner_registry, device };
    buffer_type::create(device.cast());
    let _ = DECORATED.set(decorated);
    // SAFETY: the CPU registry stays alive when unloaded from the list (it is static); ours was just leaked on purpose.
    unsafe {
        sys::ggml_backend_unload(inner_registry);
        sys::ggml_backend_register(registry.cast());
    }
    Ok(())
}

/// Whether this process has our device in the place of ggml's.
pub(crate) fn is_installed() -> bool {
    DECORATED.get().is_some()
}

impl Decorated {
    pub(crate) fn handle(&self) -> sys::ggml_backend_dev_t {
        self.device.cast()
    }
}

fn inner() -> sys::ggml_backend_dev_t {
    // The callbacks below are reachable only through the device that `install` made after setting this.
    DECORATED.get().map_or(std::ptr::null_mut(), |decorated| decorated.inner)
}

pub(crate) unsafe extern "C" fn name(_: sys::ggml_backend_dev_t) -> *const c_char {
    // SAFETY: forwarded to the live inner device.
    unsafe { sys::ggml_backend_dev_name(inner()) }
}
pub(crate) unsafe extern "C" fn description(_: sys::ggml_backend_dev_t) -> *const c_char {
    // SAFETY: forwarded to the live inner device.
    unsafe { sys::ggml_backend_dev_description(inner()) }
}
pub(crate) unsafe extern "C" fn memory(_: sys::ggml_backend_dev_t, free: *mut usize, total: *mut usize) {
    // SAFETY: forwarded to the live inner device with ggml's own pointers.
    unsafe { sys::ggml_backend_dev_memory(inner(), free, total) }
}
pub(crate) unsafe extern "C" fn kind(_: sys::ggml_backend_dev_t) -> sys::ggml_backend_dev_type {
    sys::GGML_BACKEND_DEVICE_TYPE_CPU
}
pub(crate) unsafe extern "C" fn properties(
    _: sys::ggml_backend_dev_t,
    props: *mut sys::ggml_backend_dev_props,
) {
    // SAFETY: forwarded to the live inner device with ggml's own pointer.
    unsafe { sys::ggml_backend_dev_get_props(inner(), props) }
}
pub(crate) unsafe extern "C" fn init_backend(
    device: sys::ggml_backend_dev_t,
    params: *const c_char,
) -> sys::ggml_backend_t {
    // SAFETY: forwarded to the live inner device; a null result is passed on.
    unsafe {
        let inner_backend = sys::ggml_backend_dev_init(inner(), params);
        if inner_backend.is_null() {
            return std::ptr::null_mut();
        }
        backend::decorate(device, inner_backend)
    }
}
pub(crate) unsafe extern "C" fn default_buffer_type(
    _: sys::ggml_backend_dev_t,
) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: forwarded to the live inner device.
    unsafe { sys::ggml_backend_dev_buffer_type(inner()) }
}
pub(crate) unsafe extern "C" fn buffer_from_host_ptr(
    _: sys::ggml_backend_dev_t,
    pointer: *mut c_void,
    size: usize,
    max_tensor_size: usize,
) -> sys::ggml_backend_buffer_t {
    // SAFETY: forwarded to the live inner device with ggml's own arguments.
    unsafe { sys::ggml_backend_dev_buffer_from_host_ptr(inner(), pointer, size, max_tensor_size) }
}
pub(crate) unsafe extern "C" fn supports_op(_: sys::ggml_backend_dev_t, op: *const sys::ggml_tensor) -> bool {
    // SAFETY: ggml passes a live node. A streamed weight itself arrives as a leaf (GGML_OP_NONE).
    unsafe {
        buffer_type::is_streamed(op)
            || buffer_type::is_streamed((*op).src[0])
            || sys::ggml_backend_dev_supports_op(inner(), op)
    }
}
pub(crate) unsafe extern "C" fn supports_buffer_type(
    _: sys::ggml_backend_dev_t,
    buft: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: forwarded to the live inner device.
    buffer::is_ours(buft) || unsafe { sys::ggml_backend_dev_supports_buft(inner(), buft) }
}

pub(crate) unsafe extern "C" fn registry_name(_: sys::ggml_backend_reg_t) -> *const c_char {
    DECORATED.get().map_or(c"CPU".as_ptr(), |decorated| {
        // SAFETY: forwarded to the live inner registry.
        unsafe { sys::ggml_backend_reg_name(decorated.inner_registry) }
    })
}
pub(crate) unsafe extern "C" fn registry_count(_: sys::ggml_backend_reg_t) -> usize {
    1
}
pub(crate) unsafe extern "C" fn registry_device(
    _: sys::ggml_backend_reg_t,
    _: usize,
) -> sys::ggml_backend_dev_t {
    DECORATED.get().map_or(std::ptr::null_mut(), Decorated::handle)
}
pub(crate) unsafe extern "C" fn proc_address(_: sys::ggml_backend_reg_t, name: *const c_char) -> *mut c_void {
    if name.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: ggml passes a NUL-terminated string.
    let wanted = unsafe { CStr::from_ptr(name) };
    // Functions that take a backend must unwrap ours first; the rest may be the inner device's own.
    match wanted.to_bytes() {
        b"ggml_backend_set_n_threads" => set_n_threads as *mut c_void,
        b"ggml_backend_set_abort_callback" => set_abort_callback as *mut c_void,
        b"ggml_backend_cpu_set_threadpool" => set_threadpool as *mut c_void,
        b"ggml_backend_cpu_set_use_ref" => set_use_ref as *mut c_void,
        b"ggml_backend_cpu_is_numa" => is_numa as *mut c_void,
        _ => DECORATED.get().map_or(std::ptr::null_mut(), |decorated| {
            // SAFETY: forwarded to the live inner registry with ggml's own string.
            unsafe { sys::ggml_backend_reg_get_proc_address(decorated.inner_registry, name) }
        }),
    }
}

unsafe extern "C" fn is_numa() -> bool {
    true
}
unsafe extern "C" fn set_n_threads(backend: sys::ggml_backend_t, threads: c_int) {
    // SAFETY: ggml passes a backend that `init_backend` made.
    unsafe { sys::ggml_backend_cpu_set_n_threads(backend::inner(backend), threads) }
}
unsafe extern "C" fn set_abort_callback(
    backend: sys::ggml_backend_t,
    callback: sys::ggml_abort_callback,
    data: *mut c_void,
) {
    // SAFETY: as above; callback and data are passed on unchanged.
    unsafe { backend::set_abort_callback(backend, callback, data) }
}
unsafe extern "C" fn set_threadpool(backend: sys::ggml_backend_t, pool: sys::ggml_threadpool_t) {
    // SAFETY: as above.
    unsafe { sys::ggml_backend_cpu_set_threadpool(backend::inner(backend), pool) }
}
unsafe extern "C" fn set_use_ref(backend: sys::ggml_backend_t, on: bool) {
    // SAFETY: as above.
    unsafe { sys::ggml_backend_cpu_set_use_ref(backend::inner(backend), on) }
}

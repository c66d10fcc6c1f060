//! What only the CPU's device needs: its place in ggml's registry, and functions of ours in place of those
//! that take a backend.
//!
//! A lie is told on purpose: `ggml_backend_cpu_is_numa` answers true, because llama.cpp then maps the model
//! file without reading it ahead: loading 17 GB takes milliseconds and reads nothing.

use crate::error::LoadError;
use crate::sys;
use std::ffi::{CStr, c_int, c_void};

use super::backend;
use super::functions::CpuFunctions;
use super::handle::Decorated;

/// The CPU's functions, whether or not its device has been decorated: the names lead to the same ones.
pub(crate) fn cpu_functions() -> Result<CpuFunctions, LoadError> {
    crate::system::init();
    // SAFETY: plain queries of ggml's registry; a device's registry entry lives for the whole process.
    unsafe {
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        if device.is_null() {
            return Err(LoadError::NoCpu);
        }
        Ok(CpuFunctions::of(sys::ggml_backend_dev_backend_reg(device)))
    }
}

/// Puts the decorated CPU device in the place of ggml's own.
pub(super) fn take_the_place_of(decorated: &'static Decorated) {
    // SAFETY: the CPU's registry entry stays alive when it is taken from the list (it is static); ours lives
    // for ever.
    unsafe {
        sys::ggml_backend_unload(decorated.inner_registry());
        sys::ggml_backend_register(decorated.registry());
    }
}

/// Our own function for a name that the inner registry knows; `None` where its own will do.
pub(super) fn replacement(decorated: &Decorated, name: &CStr) -> Option<*mut c_void> {
    match name.to_bytes() {
        b"ggml_backend_set_n_threads" => Some(set_threads as *mut c_void),
        b"ggml_backend_cpu_set_threadpool" => Some(set_threadpool as *mut c_void),
        b"ggml_backend_cpu_set_use_ref" => Some(set_use_ref as *mut c_void),
        b"ggml_backend_cpu_is_numa" if decorated.is_cpu() => Some(is_numa as *mut c_void),
        _ => None,
    }
}

unsafe extern "C" fn is_numa() -> bool {
    true
}
unsafe extern "C" fn set_threads(backend: sys::ggml_backend_t, threads: c_int) {
    // SAFETY: ggml passes a live backend, which a decorated device made or which is the device's own.
    unsafe {
        let (inner, functions) = backend::unwrap(backend);
        if let Some(set_threads) = functions.set_threads {
            set_threads(inner, threads);
        }
    }
}
unsafe extern "C" fn set_threadpool(backend: sys::ggml_backend_t, pool: sys::ggml_threadpool_t) {
    // SAFETY: as above; the pool is ggml's own argument.
    unsafe {
        let (inner, functions) = backend::unwrap(backend);
        if let Some(set_threadpool) = functions.set_threadpool {
            set_threadpool(inner, pool);
        }
    }
}
unsafe extern "C" fn set_use_ref(backend: sys::ggml_backend_t, on: bool) {
    // SAFETY: as above.
    unsafe {
        let (inner, functions) = backend::unwrap(backend);
        if let Some(set_use_ref) = functions.set_use_ref {
            set_use_ref(inner, on);
        }
    }
}

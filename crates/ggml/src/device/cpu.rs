//! What only the CPU's device needs: its place in ggml's registry, and the functions that ggml offers by name
//! alone.
//!
//! Those are asked of the registry and not linked, so that a build whose CPU kernels are chosen at run time
//! stays possible.
//!
//! A lie is told on purpose: `ggml_backend_cpu_is_numa` answers true, because llama.cpp then maps the model
//! file without reading it ahead: loading 17 GB takes milliseconds and reads nothing.

use crate::error::LoadError;
use crate::sys;
use std::ffi::{CStr, c_int, c_void};

use super::backend;
use super::decorated::Decorated;

type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, c_int);
type SetAbortCallback = unsafe extern "C" fn(sys::ggml_backend_t, sys::ggml_abort_callback, *mut c_void);
type SetThreadpool = unsafe extern "C" fn(sys::ggml_backend_t, sys::ggml_threadpool_t);
type SetUseRef = unsafe extern "C" fn(sys::ggml_backend_t, bool);
type NewThreadpool = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
type FreeThreadpool = unsafe extern "C" fn(*mut sys::ggml_threadpool);

/// What a registry offers by name; `None` where it does not.
#[derive(Clone, Copy, Default)]
pub(crate) struct CpuFunctions {
    pub set_threads: Option<SetThreads>,
    pub set_abort_callback: Option<SetAbortCallback>,
    pub set_threadpool: Option<SetThreadpool>,
    pub set_use_ref: Option<SetUseRef>,
    pub new_threadpool: Option<NewThreadpool>,
    pub free_threadpool: Option<FreeThreadpool>,
}

impl CpuFunctions {
    /// Asks a registry.
    ///
    /// # Safety
    /// `registry` is a live registry entry of ggml's.
    pub unsafe fn of(registry: sys::ggml_backend_reg_t) -> Self {
        // SAFETY: the caller's promise. ggml documents each name with its type (ggml-backend.h, ggml-cpu.h);
        // a null pointer becomes `None`, which is what an optional function pointer is made of.
        unsafe {
            let ask = |name: &CStr| sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr());
            Self {
                set_threads: std::mem::transmute::<*mut c_void, Option<SetThreads>>(ask(
                    c"ggml_backend_set_n_threads",
                )),
                set_abort_callback: std::mem::transmute::<*mut c_void, Option<SetAbortCallback>>(ask(
                    c"ggml_backend_set_abort_callback",
                )),
                set_threadpool: std::mem::transmute::<*mut c_void, Option<SetThreadpool>>(ask(
                    c"ggml_backend_cpu_set_threadpool",
                )),
                set_use_ref: std::mem::transmute::<*mut c_void, Option<SetUseRef>>(ask(
                    c"ggml_backend_cpu_set_use_ref",
                )),
                new_threadpool: std::mem::transmute::<*mut c_void, Option<NewThreadpool>>(ask(
                    c"ggml_threadpool_new",
                )),
                free_threadpool: std::mem::transmute::<*mut c_void, Option<FreeThreadpool>>(ask(
                    c"ggml_threadpool_free",
                )),
            }
        }
    }
}

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

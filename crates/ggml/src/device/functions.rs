//! Functions that ggml offers by name alone. They are asked of the registry and not linked, so that a build
//! whose CPU kernels are chosen at run time stays possible.

use crate::sys;
use std::ffi::{CStr, c_int, c_void};

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

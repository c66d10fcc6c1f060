//! Host memory that a CUDA device copies from and to without a detour.
//!
//! ggml pins memory for copies to the device alone (`cudaHostRegisterReadOnly`): a copy into it is an error
//! of the device. The driver pins for both. It is asked only where a backend has loaded it, and has made its
//! context the calling thread's; anywhere else there is no such memory.

use libc::{c_int, c_uint, c_void};
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;

const LIBRARY: &CStr = c"libcuda.so.1";

/// `CU_MEMHOSTREGISTER_PORTABLE`: for the contexts of all devices.
const PORTABLE: c_uint = 1;

/// Functions of the driver, by the types that `cuda.h` gives them. All return 0 where all is well.
struct Driver {
    current: GiveContext,
    push: TakePointer,
    pop: GiveContext,
    register: Register,
    unregister: TakePointer,
}

type GiveContext = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
type TakePointer = unsafe extern "C" fn(*mut c_void) -> c_int;
type Register = unsafe extern "C" fn(*mut c_void, usize, c_uint) -> c_int;

impl Driver {
    /// The driver that a backend uses; `None` without one. It stays loaded.
    fn get() -> Option<&'static Self> {
        static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
        if let Some(known) = DRIVER.get() {
            return known.as_ref();
        }
        // A driver that nobody uses may be used later.
        let driver = Self::find()?;
        DRIVER.get_or_init(|| Some(driver)).as_ref()
    }

    fn find() -> Option<Self> {
        // SAFETY: a NUL-terminated string; nothing is loaded that is not loaded already.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if library.is_null() {
            return None;
        }
        let function = |name: &CStr| {
            // SAFETY: the library is open, and never closed; the name is NUL-terminated.
            let found = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!found.is_null()).then_some(found)
        };
        // SAFETY: `cuda.h` declares functions of these types under these names.
        unsafe {
            Some(Self {
                current: std::mem::transmute::<*mut c_void, GiveContext>(function(c"cuCtxGetCurrent")?),
                push: std::mem::transmute::<*mut c_void, TakePointer>(function(c"cuCtxPushCurrent_v2")?),
                pop: std::mem::transmute::<*mut c_void, GiveContext>(function(c"cuCtxPopCurrent_v2")?),
                register: std::mem::transmute::<*mut c_void, Register>(function(c"cuMemHostRegister_v2")?),
                unregister: std::mem::transmute::<*mut c_void, TakePointer>(function(
                    c"cuMemHostUnregister",
                )?),
            })
        }
    }
}

/// Pages that stay where they are.
pub(crate) struct CudaPages {
    driver: &'static Driver,
    context: *mut c_void,
    base: *mut c_void,
}
// SAFETY: the addresses are only given back to the driver, which has no thread affinity beyond the context
// that is made current first.
unsafe impl Send for CudaPages {}

impl CudaPages {
    /// `None` where there is no driver, where this thread has no context of it, or where it refuses. Whoever
    /// owns `memory` keeps it, and its pages, for as long as this lives.
    pub fn new(memory: &[AtomicU8]) -> Option<Self> {
        let driver = Driver::get()?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer is to live memory.
        if unsafe { (driver.current)(&raw mut context) } != 0 || context.is_null() {
            return None;
        }
        let base = memory.as_ptr().cast_mut().cast::<c_void>();
        // SAFETY: the memory is alive, its cells may be written through a shared reference, and its owner
        // keeps it until this is dropped.
        let registered = unsafe { (driver.register)(base, memory.len(), PORTABLE) } == 0;
        registered.then_some(Self { driver, context, base })
    }
}

impl Drop for CudaPages {
    fn drop(&mut self) {
        // SAFETY: registered by `new`, with a context that the backend keeps for as long as the process
        // lives; nothing copies from or to it any more (`Uploader` waits first).
        unsafe {
            if (self.driver.push)(self.context) == 0 {
                (self.driver.unregister)(self.base);
                let mut popped = std::ptr::null_mut();
                (self.driver.pop)(&raw mut popped);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_backend_that_uses_the_driver_nothing_is_pinned() {
        let memory: Vec<AtomicU8> = (0..4096).map(|_| AtomicU8::new(0)).collect();
        assert!(CudaPages::new(&memory).is_none());
    }
}

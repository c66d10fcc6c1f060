//! Threads that compute: ggml's own pool, one per context.
//!
//! ggml is built without OpenMP. OpenMP's barriers collapse when another process uses a core (a decode of 6
//! tokens/s was seen to fall to 0.14); ggml's own pool degrades in proportion. Its workers poll for a short
//! while between graphs, which keeps the many small graphs of streaming cheap, and then sleep, so that
//! waiting for the disk costs no CPU.

use crate::device::{CpuFunctions, cpu_functions};
use crate::error::LoadError;
use crate::sys;

/// ggml's unit of polling is 131,072 pause instructions, a few milliseconds on current processors: longer
/// than any gap between two pieces of a graph, shorter than a wait for the disk is worth burning a core for.
const POLL: u32 = 1;

/// A pool of worker threads.
pub(crate) struct ThreadPool {
    raw: *mut sys::ggml_threadpool,
    functions: CpuFunctions,
}
// SAFETY: the pool is only handed to ggml, which synchronises its use; freeing it from another thread is
// allowed.
unsafe impl Send for ThreadPool {}

impl ThreadPool {
    /// Starts `threads - 1` workers; the caller of a graph is the last one. With `usual_poll` they poll as
    /// long as llama.cpp's own programs have them poll.
    pub fn new(threads: u32, usual_poll: bool) -> Result<Self, LoadError> {
        let threads = i32::try_from(threads.max(1)).unwrap_or(i32::MAX);
        let functions = cpu_functions()?;
        let new = functions.new_threadpool.ok_or(LoadError::NoCpu)?;
        // SAFETY: plain parameters; a null result is checked.
        let raw = unsafe {
            let mut params = sys::ggml_threadpool_params_default(threads);
            if !usual_poll {
                params.poll = POLL;
            }
            new(&raw mut params)
        };
        if raw.is_null() { Err(LoadError::Threads(threads)) } else { Ok(Self { raw, functions }) }
    }

    pub fn raw(&self) -> *mut sys::ggml_threadpool {
        self.raw
    }

    /// Has a backend of the CPU compute with these threads.
    ///
    /// # Safety
    /// `backend` is a live backend of the CPU device, and the pool outlives it.
    pub unsafe fn attach(&self, backend: sys::ggml_backend_t) {
        if let Some(set) = self.functions.set_threadpool {
            // SAFETY: the caller's promise.
            unsafe { set(backend, self.raw) };
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        if let Some(free) = self.functions.free_threadpool {
            // SAFETY: made by ggml_threadpool_new, freed once, after the context that used it (field order of
            // `Context`).
            unsafe { free(self.raw) };
        }
    }
}

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

/// The pools of a context: one of all its threads, and those of the smaller numbers that it computed with of
/// late. A pool cannot lend a part of its threads: the others would wake for every graph and poll beside it.
pub(crate) struct Pools {
    pools: Vec<(u32, ThreadPool)>,
    most: u32,
    /// Threads of the pool that the context was given last.
    given: u32,
    /// Threads of the pools that its backends may still know, which must not be freed: those of the last
    /// decode that computed a graph, and of what was tried since.
    known: Vec<u32>,
}

impl Pools {
    /// With a pool of `most` threads.
    pub fn new(most: u32, usual_poll: bool) -> Result<Self, LoadError> {
        let most = most.max(1);
        Ok(Self {
            pools: vec![(most, ThreadPool::new(most, usual_poll)?)],
            most,
            given: most,
            known: Vec::new(),
        })
    }

    /// Threads of the pool that is given to the context.
    pub fn threads(&self) -> u32 {
        self.given
    }

    /// A pool of so many threads, to be given to the context.
    pub fn give(&mut self, threads: u32) -> Result<*mut sys::ggml_threadpool, LoadError> {
        let threads = threads.clamp(1, self.most);
        let kept = |size: u32| size == self.most || size == threads || self.known.contains(&size);
        self.pools.retain(|(size, _)| kept(*size));
        let at = match self.pools.iter().position(|(size, _)| *size == threads) {
            Some(at) => at,
            None => {
                self.pools.push((threads, ThreadPool::new(threads, false)?));
                self.pools.len() - 1
            }
        };
        self.given = threads;
        Ok(self.pools[at].1.raw())
    }

    /// The context is about to decode with the pool that was given last.
    pub fn begin(&mut self) {
        if !self.known.contains(&self.given) {
            self.known.push(self.given);
        }
    }

    /// It did: no backend knows another one any more.
    pub fn computed(&mut self) {
        self.known = vec![self.given];
    }
}

/// Threads of a backend that no context has: one that computes graphs of another process.
pub struct BackendThreads {
    pools: Pools,
    functions: CpuFunctions,
}

impl BackendThreads {
    /// At most so many. They have the name that the calling thread has.
    ///
    /// # Errors
    /// [`LoadError::Threads`]; [`LoadError::NoCpu`] in a build without the CPU's backend.
    pub fn new(most: u32) -> Result<Self, LoadError> {
        Ok(Self { pools: Pools::new(most, false)?, functions: cpu_functions()? })
    }

    /// Has a backend compute its next graphs with so many threads.
    ///
    /// # Errors
    /// [`LoadError::Threads`]: it computes with as many as before.
    ///
    /// # Safety
    /// `backend` is a live backend (`ggml_backend_t`) of the CPU device, the same in all calls; it computes
    /// nothing now, and nothing any more once this is dropped.
    pub unsafe fn give(&mut self, backend: *mut std::ffi::c_void, threads: u32) -> Result<(), LoadError> {
        let backend: sys::ggml_backend_t = backend.cast();
        let pool = self.pools.give(threads)?;
        if let (Some(set_pool), Some(set_threads)) =
            (self.functions.set_threadpool, self.functions.set_threads)
        {
            // SAFETY: the caller's promise. The pool that the backend had before is alive (`Pools::known`),
            // because ggml pauses it now.
            unsafe {
                set_pool(backend, pool);
                set_threads(backend, i32::try_from(self.pools.threads()).unwrap_or(i32::MAX));
            }
            self.pools.begin();
            self.pools.computed();
        }
        Ok(())
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

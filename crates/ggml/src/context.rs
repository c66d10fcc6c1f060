//! A context: KV cache, compute buffers, and the decode call.

use crate::backend::{self, Attachment, ErrorSlot};
use crate::batch::Batch;
use crate::error::{DecodeError, LoadError};
use crate::graph::Executor;
use crate::model::Model;
use crate::threads::ThreadPool;
use crate::{log, sys};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

/// Element types of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit blocks: about half the memory, slightly lossy, needs flash attention.
    Q8_0,
}

/// What the context must be able to do.
#[derive(Clone, Debug)]
pub struct ContextOptions {
    /// Tokens the KV cache holds, all sequences together.
    pub context: u32,
    /// Most tokens in one decode call.
    pub batch: u32,
    /// Most tokens in one graph.
    pub ubatch: u32,
    /// Parallel sequences.
    pub sequences: u32,
    /// Threads that compute.
    pub threads: u32,
    /// Element type of the KV cache.
    pub kv: KvType,
}

/// Bytes a context uses, as llama.cpp accounts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights in host memory (ours or llama.cpp's).
    pub model_bytes: u64,
    /// KV cache and recurrent state.
    pub context_bytes: u64,
    /// Compute buffers.
    pub compute_bytes: u64,
}

/// A context of a model.
pub struct Context {
    raw: *mut sys::llama_context,
    vocab_size: usize,
    error: ErrorSlot,
    abort: Arc<AtomicBool>,
    _threads: ThreadPool,
    _model: Model,
}
// SAFETY: a context has no thread affinity; `&mut self` on every changing call keeps it to one thread at a time.
unsafe impl Send for Context {}

impl Context {
    /// Creates a context. With an `executor`, every graph goes through it; the model must then have been loaded
    /// decorated.
    ///
    /// # Errors
    /// [`LoadError::Context`] with llama.cpp's reason.
    pub fn new(
        model: &Model,
        options: &ContextOptions,
        executor: Option<Box<dyn Executor>>,
        abort: Arc<AtomicBool>,
    ) -> Result<Self, LoadError> {
        let threads = i32::try_from(options.threads.max(1)).unwrap_or(i32::MAX);
        let pool = ThreadPool::new(options.threads)?;
        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = options.context;
        params.n_batch = options.batch;
        params.n_ubatch = options.ubatch;
        params.n_seq_max = options.sequences.max(1);
        // One pool of cells for all sequences: any of them may grow while others are short, a shared beginning is stored
        // once, and prompts share a graph with single tokens.
        params.kv_unified = true;
        params.n_threads = threads;
        params.n_threads_batch = threads;
        params.no_perf = true;
        if options.kv == KvType::Q8_0 {
            params.type_k = sys::GGML_TYPE_Q8_0;
            params.type_v = sys::GGML_TYPE_Q8_0;
        }
        // llama.cpp calls this between nodes; the Arc below keeps the flag alive as long as the context.
        params.abort_callback = Some(on_abort_query);
        params.abort_callback_data = Arc::as_ptr(&abort).cast_mut().cast::<c_void>();
        let error = ErrorSlot::default();
        log::clear();
        let _ = backend::withdraw();
        if let Some(executor) = executor {
            backend::offer(Attachment { executor, error: Arc::clone(&error) });
        }
        // SAFETY: the model is alive and kept alive by the context.
        let raw = unsafe { sys::llama_init_from_model(model.raw(), params) };
        let untaken = backend::withdraw();
        if raw.is_null() {
            return Err(LoadError::Context { context: options.context, reason: log::take() });
        }
        // SAFETY: context and pool are alive; the pool outlives the context, which `drop` frees first.
        unsafe { sys::llama_attach_threadpool(raw, pool.raw(), pool.raw()) };
        let context = Self {
            raw,
            vocab_size: model.vocab().len(),
            error,
            abort,
            _threads: pool,
            _model: model.clone(),
        };
        match untaken {
            None => Ok(context),
            Some(_) => Err(LoadError::Context {
                context: options.context,
                reason: "the model was not loaded for streaming".to_owned(),
            }),
        }
    }

    /// Tokens the KV cache holds.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        // SAFETY: the context is alive.
        unsafe { sys::llama_n_ctx(self.raw) }
    }

    /// Most tokens in one decode call.
    #[must_use]
    pub fn batch_capacity(&self) -> u32 {
        // SAFETY: the context is alive.
        unsafe { sys::llama_n_batch(self.raw) }
    }

    /// Computes a batch.
    ///
    /// # Errors
    /// [`DecodeError`]; after any error the caller should drop the affected positions with [`Self::forget`].
    pub fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        log::clear();
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // SAFETY: the batch holds valid arrays for its token count.
        let code = unsafe { sys::llama_decode(self.raw, batch.raw()) };
        let failure = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (failure, code) {
            (Some(failure), _) => Err(DecodeError::Exec(failure)),
            (None, 0) => Ok(()),
            (None, 1) => Err(DecodeError::NoRoom(batch.len())),
            (None, 2) => Err(DecodeError::Aborted),
            (None, _) if self.abort.load(Ordering::Relaxed) => Err(DecodeError::Aborted),
            (None, code) => Err(DecodeError::Refused { code, reason: log::take() }),
        }
    }

    /// The logits of batch entry `index` of the last decode (−1: the last), one per token of the vocabulary.
    ///
    /// # Errors
    /// [`DecodeError::NoLogits`] when that entry asked for none.
    pub fn logits(&mut self, index: i32) -> Result<&[f32], DecodeError> {
        // SAFETY: the context is alive; a null result is checked.
        let row = unsafe { sys::llama_get_logits_ith(self.raw, index) };
        if row.is_null() {
            return Err(DecodeError::NoLogits(index));
        }
        // SAFETY: llama.cpp keeps `vocab_size` floats there until the next decode, which needs `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts(row, self.vocab_size) })
    }

    /// Removes positions `from..` of a sequence (all sequences for −1). False when the memory cannot do that partially
    /// (recurrent models); nothing was removed then.
    pub fn forget(&mut self, sequence: i32, from: i32) -> bool {
        // SAFETY: the context is alive and owns its memory.
        unsafe { sys::llama_memory_seq_rm(sys::llama_get_memory(self.raw), sequence, from, -1) }
    }

    /// Gives sequence `to` the first `length` positions of sequence `from`; `to` must be empty. In a KV cache that copies
    /// nothing: both then share the cells.
    pub fn share(&mut self, from: i32, to: i32, length: i32) {
        // SAFETY: the context is alive and owns its memory; llama.cpp checks the ids.
        unsafe { sys::llama_memory_seq_cp(sys::llama_get_memory(self.raw), from, to, 0, length) }
    }

    /// First and last position that a sequence has in memory; `None` when it is empty. Sliding windows drop old ones.
    #[must_use]
    pub fn positions(&self, sequence: i32) -> Option<(i32, i32)> {
        // SAFETY: the context is alive and owns its memory.
        let (first, last) = unsafe {
            let memory = sys::llama_get_memory(self.raw);
            (sys::llama_memory_seq_pos_min(memory, sequence), sys::llama_memory_seq_pos_max(memory, sequence))
        };
        (first >= 0 && last >= 0).then_some((first, last))
    }

    /// Sequences that the context can hold.
    #[must_use]
    pub fn sequences(&self) -> u32 {
        // SAFETY: the context is alive.
        unsafe { sys::llama_n_seq_max(self.raw) }
    }

    /// Empties the KV cache.
    pub fn clear(&mut self) {
        // SAFETY: as above.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.raw), false) };
    }

    /// Changes the number of computing threads.
    pub fn set_threads(&mut self, threads: u32) {
        let threads = i32::try_from(threads.max(1)).unwrap_or(i32::MAX);
        // SAFETY: the context is alive.
        unsafe { sys::llama_set_n_threads(self.raw, threads, threads) };
    }

    /// What the context uses.
    #[must_use]
    pub fn memory_use(&self) -> MemoryUse {
        const MOST: usize = 64;
        // SAFETY: the struct is plain data, for which zeroes are valid.
        let mut entries: [sys::llama_memory_breakdown_entry; MOST] = unsafe { std::mem::zeroed() };
        // SAFETY: writes at most MOST entries.
        let count = unsafe { sys::llama_memory_breakdown_collect(self.raw, entries.as_mut_ptr(), MOST) };
        entries.iter().take(count).fold(MemoryUse::default(), |sum, entry| MemoryUse {
            model_bytes: sum.model_bytes + entry.model as u64,
            context_bytes: sum.context_bytes + entry.context as u64,
            compute_bytes: sum.compute_bytes + entry.compute as u64,
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by llama_init_from_model, freed once, before the model and the abort flag.
        unsafe { sys::llama_free(self.raw) };
    }
}

unsafe extern "C" fn on_abort_query(flag: *mut c_void) -> bool {
    // SAFETY: the flag is the AtomicBool that the context keeps alive.
    unsafe { (*flag.cast::<AtomicBool>()).load(Ordering::Relaxed) }
}

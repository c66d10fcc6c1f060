//! A context: KV cache, compute buffers, and the decode call.

use crate::batch::Batch;
use crate::device::Device;
use crate::error::{DecodeError, ExecError, LoadError};
use crate::exec::DeviceExecutor;
use crate::exec::attach::{ABORT_QUERY, Hooks};
use crate::memory_use::{DeviceMemoryUse, MemoryUse};
use crate::model::Model;
use crate::threads::Pools;
use crate::{log, sys};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Element types of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit blocks: about half the memory, slightly lossy, needs flash attention.
    Q8_0,
}

/// How the embedding of a text is made from those of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The first token's.
    First,
    /// The last token's.
    Last,
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
    /// Most tokens of a decode call whose logits are wanted, or that are embedded; each takes a row of the
    /// vocabulary in the compute buffers. At least one for each sequence; 0 stands for all.
    pub outputs: u32,
    /// Parallel sequences.
    pub sequences: u32,
    /// Threads that compute.
    pub threads: u32,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// How embeddings are pooled, when asked for; `None`: each token has its own. Pooled ones need `outputs`
    /// for all tokens.
    pub pooling: Option<Pooling>,
    /// llama.cpp's choice whether to use flash attention, or none at all.
    pub flash_attention: bool,
    /// As llama.cpp's own programs make a context: threads that poll as long as theirs do, and no way to stop
    /// a decode. For baselines.
    pub alone: bool,
    /// Only the CPU kernels that compute each row by itself, whatever else is in the graph: slower, and the
    /// same bits for one row and for many. llama.cpp has others for several rows of floats and of some 8- and
    /// 4-bit types (`llamafile_sgemm`), and for attention with many rows or over a long context.
    pub reference_kernels: bool,
    /// llama.cpp's own cache of experts in the memory of a GPU, for baselines; 0: none.
    pub moe_cache_bytes: u64,
}

impl ContextOptions {
    /// llama.cpp aborts the program when there are fewer outputs than sequences, or more than tokens.
    fn outputs_max(&self) -> u32 {
        let batch = self.whole_parts(self.batch.max(self.sequences));
        if self.outputs == 0 { batch } else { self.outputs.max(self.sequences).min(batch) }
    }

    /// What llama.cpp gets to know of them.
    fn params(&self) -> sys::llama_context_params {
        let threads = i32::try_from(self.threads.max(1)).unwrap_or(i32::MAX);
        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ubatch = self.whole_parts(self.ubatch);
        // A context is a multiple of 256 tokens, and llama.cpp makes no ubatch larger than the context.
        let least = if self.pooling.is_some() { params.n_ubatch } else { 0 };
        params.n_ctx = self.context.max(self.sequences).max(least);
        // llama.cpp aborts the program when a batch cannot have an output for each sequence.
        params.n_batch = self.whole_parts(self.batch.max(self.sequences));
        params.n_seq_max = self.sequences.max(1);
        params.n_outputs_max = self.outputs_max();
        // One pool of cells for all sequences: any of them may grow while others are short, a shared
        // beginning is stored once, and prompts share a graph with single tokens.
        params.kv_unified = !self.alone;
        params.n_threads = threads;
        params.n_threads_batch = threads;
        params.no_perf = true;
        params.moe_cache_size = usize::try_from(self.moe_cache_bytes).unwrap_or(usize::MAX);
        if !self.flash_attention {
            params.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_DISABLED;
        }
        if self.kv == KvType::Q8_0 {
            params.type_k = sys::GGML_TYPE_Q8_0;
            params.type_v = sys::GGML_TYPE_Q8_0;
        }
        // Only read while embeddings are switched on.
        params.pooling_type = match self.pooling {
            Some(Pooling::Mean) => sys::LLAMA_POOLING_TYPE_MEAN,
            Some(Pooling::First) => sys::LLAMA_POOLING_TYPE_CLS,
            Some(Pooling::Last) => sys::LLAMA_POOLING_TYPE_LAST,
            None => sys::LLAMA_POOLING_TYPE_NONE,
        };
        params
    }

    /// So many tokens, or the few more of them that divide evenly among all sequences, where embeddings are
    /// pooled. llama.cpp reserves a graph of a whole ubatch with all sequences in equal parts, rounds its
    /// tokens up and not its outputs, and aborts the program where pooling multiplies the two.
    fn whole_parts(&self, tokens: u32) -> u32 {
        if self.pooling.is_none() { tokens } else { tokens.next_multiple_of(self.sequences.max(1)) }
    }
}

/// A context of a model.
pub struct Context {
    /// Null only after [`Self::rebuild`] failed twice; every call then does nothing.
    raw: *mut sys::llama_context,
    options: ContextOptions,
    vocab_size: usize,
    /// All tokens are outputs: they are embedded.
    embeds: bool,
    /// Outlives llama.cpp's context, whose backends point to it.
    hooks: Arc<Hooks>,
    threads: Pools,
    model: Model,
}
// SAFETY: a context has no thread affinity; `&mut self` on every changing call keeps it to one thread at a
// time.
unsafe impl Send for Context {}

/// Grows with every node that a context computes on the CPU, and not while a computation hangs. Other devices
/// compute whole graphs and say nothing meanwhile.
#[must_use]
pub fn nodes_of(context: &Context) -> Arc<AtomicU64> {
    Arc::clone(context.hooks.nodes())
}

impl Context {
    /// Creates a context. Graphs of a device with an executor go through it; the model is then a decorated
    /// one.
    ///
    /// # Errors
    /// [`LoadError::Context`] with llama.cpp's reason.
    pub fn new(
        model: &Model,
        options: &ContextOptions,
        executors: Vec<DeviceExecutor>,
        abort: Arc<AtomicBool>,
    ) -> Result<Self, LoadError> {
        let mut context = Self {
            raw: std::ptr::null_mut(),
            options: options.clone(),
            vocab_size: model.vocab().len(),
            embeds: false,
            hooks: Hooks::new(abort, executors, options.reference_kernels),
            threads: Pools::new(options.threads, options.alone)?,
            model: model.clone(),
        };
        context.create()?;
        Ok(context)
    }

    /// Makes the context anew with another number of tokens; the model, its weights and the executor stay.
    /// All sequences are lost: save them before. The old memory is freed first.
    ///
    /// # Errors
    /// [`LoadError::Context`]; the context then is as large as before, and empty.
    pub fn rebuild(&mut self, tokens: u32) -> Result<(), LoadError> {
        let before = self.options.context;
        self.free();
        self.options.context = tokens;
        let Err(error) = self.create() else { return Ok(()) };
        self.options.context = before;
        self.create()?;
        Err(error)
    }

    fn create(&mut self) -> Result<(), LoadError> {
        let options = &self.options;
        let mut params = options.params();
        // Which kernels compute a weight follows from where it is placed, not from how long a prompt is.
        params.op_offload &= !self.model.is_decorated();
        // llama.cpp calls this between nodes, and backends find their executor by it; the Arc keeps it alive
        // as long.
        if !options.alone {
            params.abort_callback = ABORT_QUERY;
            params.abort_callback_data = Arc::as_ptr(&self.hooks).cast_mut().cast::<c_void>();
        }
        log::clear();
        // SAFETY: the model is alive and kept alive by the context.
        let raw = unsafe { sys::llama_init_from_model(self.model.raw(), params) };
        if raw.is_null() {
            return Err(LoadError::Context { context: self.options.context, reason: log::take() });
        }
        self.raw = raw;
        self.set_threads(self.threads.threads())?;
        match self.hooks.untaken() {
            None => Ok(()),
            Some(device) => Err(LoadError::Context {
                context: self.options.context,
                reason: format!("the model was not loaded for streaming on {}", device.name()),
            }),
        }
    }

    /// Computes with so many threads from now on, at most those that it was made for. The bits of some
    /// kernels depend on it: attention of single tokens over 512 cells or more.
    ///
    /// # Errors
    /// [`LoadError::Threads`]; those of before then compute on.
    pub fn set_threads(&mut self, threads: u32) -> Result<(), LoadError> {
        if self.raw.is_null() {
            return Ok(());
        }
        let pool = self.threads.give(threads)?;
        let count = i32::try_from(self.threads.threads()).unwrap_or(i32::MAX);
        // SAFETY: context and pool are alive; pools outlive the context, which `drop` frees first, and the
        // one that its backends still know stays until another graph was computed.
        unsafe {
            sys::llama_attach_threadpool(self.raw, pool, pool);
            sys::llama_set_n_threads(self.raw, count, count);
        }
        Ok(())
    }

    /// Threads that compute.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.threads.threads()
    }

    fn free(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: made by llama_init_from_model, freed once, before the model, the threads and the abort
            // flag.
            unsafe { sys::llama_free(self.raw) };
            self.raw = std::ptr::null_mut();
        }
    }

    /// The memory of sequences; null without a context, which llama.cpp's memory functions accept.
    fn memory(&self) -> sys::llama_memory_t {
        if self.raw.is_null() {
            return std::ptr::null_mut();
        }
        // SAFETY: the context is alive and owns its memory.
        unsafe { sys::llama_get_memory(self.raw) }
    }

    /// Tokens the KV cache holds.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        if self.raw.is_null() {
            return 0;
        }
        // SAFETY: the context is alive.
        unsafe { sys::llama_n_ctx(self.raw) }
    }

    /// Most tokens in one decode call.
    #[must_use]
    pub fn batch_capacity(&self) -> u32 {
        self.options.batch
    }

    /// Most tokens of a decode call whose logits are wanted, or that are embedded.
    #[must_use]
    pub fn output_capacity(&self) -> u32 {
        self.options.outputs_max()
    }

    /// Computes a batch.
    ///
    /// # Errors
    /// [`DecodeError`]; after any error the caller should drop the affected positions with [`Self::forget`].
    pub fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        if self.raw.is_null() {
            return Err(DecodeError::Refused { code: 0, reason: "there is no context any more".to_owned() });
        }
        self.check_rows(batch)?;
        // llama.cpp aborts the program when there are more.
        let outputs = if self.embeds { batch.len() } else { batch.outputs() };
        if outputs > self.output_capacity() as usize {
            let reason = format!("{outputs} outputs asked for, {} at most", self.output_capacity());
            return Err(DecodeError::Refused { code: 0, reason });
        }
        log::clear();
        self.hooks.begin_step().map_err(DecodeError::Exec)?;
        let code = self.compute(batch);
        let failure = self.hooks.take_failure().or_else(|| self.model.take_misread().map(ExecError::Misread));
        let ended = self.hooks.end_step(code == 0 && failure.is_none());
        match (failure.or(ended.err()), code) {
            (Some(failure), _) => Err(DecodeError::Exec(failure)),
            (None, 0) => Ok(()),
            (None, 1) => Err(DecodeError::NoRoom(batch.len())),
            (None, 2) => Err(DecodeError::Aborted),
            (None, _) if self.hooks.is_aborted() => Err(DecodeError::Aborted),
            (None, code) => Err(DecodeError::Refused { code, reason: log::take() }),
        }
    }

    /// Has llama.cpp compute a batch; returns its code.
    fn compute(&mut self, batch: &Batch) -> i32 {
        if batch.non_causal() {
            // SAFETY: the context is alive. Only masks change with it, not the size of a graph.
            unsafe { sys::llama_set_causal_attn(self.raw, false) };
        }
        self.threads.begin();
        // SAFETY: the batch holds valid arrays for its token count, and rows as wide as the model takes them.
        let code = unsafe { sys::llama_decode(self.raw, batch.raw()) };
        if code == 0 {
            self.threads.computed();
        }
        if batch.non_causal() {
            // SAFETY: as above.
            unsafe { sys::llama_set_causal_attn(self.raw, true) };
        }
        if self.hooks.is_asynchronous() {
            // SAFETY: the context is alive. Executors take back memory that kernels read until here.
            unsafe { sys::llama_synchronize(self.raw) };
        }
        code
    }

    /// llama.cpp reads as many numbers and positions of each row as the model has, whatever the batch holds.
    fn check_rows(&self, batch: &Batch) -> Result<(), DecodeError> {
        let positions = if self.model.has_mrope() { 4 } else { 1 };
        let as_wide = batch.width().is_none_or(|width| width == self.model.input_width());
        if as_wide && batch.positions_each().is_none_or(|each| each == positions) {
            return Ok(());
        }
        Err(DecodeError::Refused { code: 0, reason: "the rows of an image do not fit the model".to_owned() })
    }

    /// The logits of batch entry `index` of the last decode (−1: the last), one per token of the vocabulary.
    ///
    /// # Errors
    /// [`DecodeError::NoLogits`] when that entry asked for none.
    pub fn logits(&mut self, index: i32) -> Result<&[f32], DecodeError> {
        if self.raw.is_null() {
            return Err(DecodeError::NoLogits(index));
        }
        // SAFETY: the context is alive; a null result is checked.
        let row = unsafe { sys::llama_get_logits_ith(self.raw, index) };
        if row.is_null() {
            return Err(DecodeError::NoLogits(index));
        }
        // SAFETY: llama.cpp keeps `vocab_size` floats there until the next decode, which needs `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts(row, self.vocab_size) })
    }

    /// Removes positions `from..` of a sequence (all sequences for −1). False when the memory cannot do that
    /// partially (recurrent models); nothing was removed then.
    pub fn forget(&mut self, sequence: i32, from: i32) -> bool {
        // SAFETY: the context is alive and owns its memory.
        unsafe { sys::llama_memory_seq_rm(self.memory(), sequence, from, -1) }
    }

    /// Gives sequence `to` the first `length` positions of sequence `from`; `to` must be empty. In a KV cache
    /// that copies nothing: both then share the cells.
    pub fn share(&mut self, from: i32, to: i32, length: i32) {
        // SAFETY: the context is alive and owns its memory; llama.cpp checks the ids.
        unsafe { sys::llama_memory_seq_cp(self.memory(), from, to, 0, length) }
    }

    /// First and last position that a sequence has in memory; `None` when it is empty. Sliding windows drop
    /// old ones.
    #[must_use]
    pub fn positions(&self, sequence: i32) -> Option<(i32, i32)> {
        // SAFETY: the context is alive and owns its memory.
        let (first, last) = unsafe {
            let memory = self.memory();
            (sys::llama_memory_seq_pos_min(memory, sequence), sys::llama_memory_seq_pos_max(memory, sequence))
        };
        (first >= 0 && last >= 0).then_some((first, last))
    }

    /// Sequences that the context can hold.
    #[must_use]
    pub fn sequences(&self) -> u32 {
        self.options.sequences.max(1)
    }

    /// Empties the KV cache.
    pub fn clear(&mut self) {
        // SAFETY: the context is alive and owns its memory, or there is none, which llama.cpp accepts.
        unsafe { sys::llama_memory_clear(self.memory(), false) };
    }

    /// Bytes of [`Self::save`].
    #[must_use]
    pub fn state_bytes(&mut self, sequence: i32) -> u64 {
        if self.raw.is_null() || self.positions(sequence).is_none() {
            return 0;
        }
        // SAFETY: the context is alive.
        unsafe { sys::llama_state_seq_get_size(self.raw, sequence) as u64 }
    }

    /// The state of a sequence, to be put back by [`Self::restore`] into a context of the same model and KV
    /// type; empty when there is none.
    #[must_use]
    pub fn save(&mut self, sequence: i32) -> Vec<u8> {
        if self.raw.is_null() || self.positions(sequence).is_none() {
            return Vec::new();
        }
        // SAFETY: the context is alive.
        let size = unsafe { sys::llama_state_seq_get_size(self.raw, sequence) };
        let mut bytes = vec![0u8; size];
        // SAFETY: writes at most `size` bytes; llama.cpp catches its own exceptions there.
        let written = unsafe { sys::llama_state_seq_get_data(self.raw, bytes.as_mut_ptr(), size, sequence) };
        bytes.truncate(written);
        bytes
    }

    /// Puts a saved state into an empty sequence. False when llama.cpp refuses it; the sequence is empty
    /// then. The bytes must be those of [`Self::save`]: llama.cpp checks their shape, and nothing checks
    /// their meaning.
    pub fn restore(&mut self, sequence: i32, state: &[u8]) -> bool {
        if self.raw.is_null() || state.is_empty() {
            return false;
        }
        log::clear();
        // SAFETY: reads at most the slice; llama.cpp catches its own exceptions there.
        let read = unsafe { sys::llama_state_seq_set_data(self.raw, state.as_ptr(), state.len(), sequence) };
        if read == 0 {
            self.forget(sequence, 0);
        }
        read != 0
    }

    /// Switches between logits and embeddings.
    pub fn set_embeddings(&mut self, on: bool) {
        self.embeds = on;
        if !self.raw.is_null() {
            // SAFETY: the context is alive.
            unsafe { sys::llama_set_embeddings(self.raw, on) };
        }
    }

    /// The pooled embedding of a sequence's tokens in the last decode, with embeddings switched on.
    #[must_use]
    pub fn embedding(&mut self, sequence: i32) -> Option<Vec<f32>> {
        if self.raw.is_null() {
            return None;
        }
        // SAFETY: the context is alive; a null result is checked.
        let row = unsafe { sys::llama_get_embeddings_seq(self.raw, sequence) };
        // SAFETY: a pooled embedding has as many numbers as the model's output.
        (!row.is_null()).then(|| unsafe { std::slice::from_raw_parts(row, self.model.embedding()) }.to_vec())
    }

    /// Whether the embeddings of a text are pooled here.
    #[must_use]
    pub fn pools(&self) -> bool {
        self.options.pooling.is_some()
    }

    /// The embedding of batch entry `index` of the last decode, with embeddings switched on and not pooled.
    #[must_use]
    pub fn token_embedding(&mut self, index: i32) -> Option<&[f32]> {
        if self.raw.is_null() || self.pools() {
            return None;
        }
        // SAFETY: the context is alive; a null result is checked.
        let row = unsafe { sys::llama_get_embeddings_ith(self.raw, index) };
        // SAFETY: an embedding has as many numbers as the model's output; llama.cpp keeps them until the next
        // decode, which needs `&mut self`.
        (!row.is_null()).then(|| unsafe { std::slice::from_raw_parts(row, self.model.embedding()) })
    }

    /// What the context uses.
    #[must_use]
    pub fn memory_use(&self) -> MemoryUse {
        if self.raw.is_null() {
            return MemoryUse::default();
        }
        // SAFETY: the context is alive.
        unsafe { MemoryUse::of(self.raw) }
    }
}

impl DeviceMemoryUse {
    /// What a context uses of the memory of one device.
    #[must_use]
    pub fn in_device(context: &Context, device: Device) -> Self {
        if context.raw.is_null() {
            return Self::default();
        }
        // SAFETY: the context is alive.
        unsafe { Self::of(context.raw, device) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.free();
    }
}

//! A runner's settings, and what it tells about itself.

use hypura_core::plan::{ContextFacts, Ledger, Mode, Purpose};
use hypura_ggml::Token;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::live::Live;
use crate::budget::SharedMemory;
use crate::media::Modalities;
use crate::request::SpeculationStats;
use crate::stream::{Held, StreamStats};
use crate::workers::WorkerShare;

/// How a runner works.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunnerSettings {
    /// Requests at once; at most the sequences that the model was loaded for.
    pub parallel: usize,
    /// Requests that may wait beyond those that run.
    pub max_queue: usize,
    /// Where to keep the KV cache of idle conversations on disk; `None`: nowhere, nothing is ever written.
    pub kv_cache_dir: Option<PathBuf>,
    /// Most bytes kept there.
    pub kv_cache_quota_bytes: u64,
    /// The memory that a larger context is asked of; `None`: what was planned for the model is its own.
    #[serde(skip)]
    pub memory: Option<Arc<dyn SharedMemory>>,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self { parallel: 1, max_queue: 512, kv_cache_dir: None, kv_cache_quota_bytes: 8 << 30, memory: None }
    }
}

/// What never changes while a model is loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunnerInfo {
    /// llama.cpp's name of the architecture.
    pub architecture: String,
    /// Context length in training, in tokens.
    pub context_train: u32,
    /// Length of an embedding.
    pub embedding_length: usize,
    /// Most tokens of a text to embed.
    pub embed_most: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Begins texts, where the model has such a token.
    pub bos: Option<Token>,
    /// Ends texts, where the model has such a token.
    pub eos: Option<Token>,
    /// Whether texts begin with BOS.
    pub adds_bos: bool,
    /// What it can be shown.
    pub modalities: Modalities,
    /// Whether it is made for embeddings (its metadata names a pooling).
    pub is_embedding_model: bool,
    /// Requests at once.
    pub parallel: usize,
    /// How it runs.
    pub mode: Mode,
    /// Layers.
    pub layers: u32,
    /// Routed experts of a layer; 0 of a dense model.
    pub experts: u32,
    /// Of those, the ones that a token uses.
    pub experts_used: u32,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Weights in memory, slots and cells excluded.
    pub resident_bytes: u64,
    /// Name of the reader; `None` when nothing streams.
    pub reader: Option<String>,
    /// How long loading took.
    pub load_time: Duration,
    /// What the user may want to know (a fallback that was taken).
    pub notes: Vec<String>,
}

/// A snapshot of a runner.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// Tokens that one sequence may have now.
    pub context_length: u32,
    /// Tokens that all sequences together may have now.
    pub context_cells: u32,
    /// Bytes of the host's memory held now: weights, slots, cells, KV cache, compute buffers, and the process
    /// for this model.
    pub memory_bytes: u64,
    /// Bytes of devices' memory held now: weights, KV cache, compute buffers.
    pub device_bytes: u64,
    /// What other machines have of it.
    pub workers: Vec<WorkerShare>,
    /// Bytes of weights that are not in memory, resident or in a slot.
    pub weights_on_disk_bytes: u64,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// What the memory is held for.
    pub parts: MemoryParts,
    /// How fast it goes.
    pub live: Live,
    /// Grows with every step, node and read: a model at work whose number stays hangs.
    pub moved: u64,
    /// Requests that run.
    pub active: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Every sequence of the context.
    pub slots: Vec<SequenceStatus>,
    /// For estimates of a larger context.
    pub(crate) context: ContextFacts,
    /// What streaming still held after the last graph: no pins, or something leaks.
    pub held: Held,
    /// Why idle conversations are no longer kept on disk, when that was asked for.
    pub kv_cache_error: Option<String>,
    /// Since the model was loaded.
    pub totals: Totals,
}

impl RunnerStatus {
    /// Bytes of other machines' memory held now.
    #[must_use]
    pub fn worker_bytes(&self) -> u64 {
        self.workers.iter().fold(0, |sum, worker| sum.saturating_add(worker.bytes))
    }

    /// Tokens of context that a request which asks for `num_ctx` gets while so much memory is free: at least
    /// what there is, at most what that memory is enough for.
    #[must_use]
    pub fn context_for(&self, num_ctx: Option<u32>, free_bytes: u64) -> u32 {
        let now = self.context_length;
        match num_ctx {
            Some(wanted) if wanted > now => wanted.min(self.context.most(free_bytes)).max(now),
            _ => now,
        }
    }
}

/// Bytes of memory, of the host, of devices and of other machines, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryParts {
    /// Weights that stay.
    pub weights: u64,
    /// Slots, cells and rings that weights stream through.
    pub streaming: u64,
    /// KV cache and recurrent state.
    pub kv: u64,
    /// Compute buffers.
    pub compute: u64,
    /// The process, the driver of a GPU, the projector, the draft model.
    pub other: u64,
}

impl MemoryParts {
    pub(crate) fn of(ledger: &Ledger) -> Self {
        let sum = |purposes: &[Purpose]| purposes.iter().map(|purpose| ledger.bytes_for(*purpose)).sum();
        Self {
            weights: sum(&[Purpose::Weights]),
            streaming: sum(&[Purpose::Slots, Purpose::Cells, Purpose::Ring, Purpose::Rows]),
            kv: sum(&[Purpose::Kv]),
            compute: sum(&[Purpose::Compute]),
            other: sum(&[Purpose::Process, Purpose::Driver, Purpose::Media, Purpose::Draft]),
        }
    }
}

/// One sequence of the context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceStatus {
    /// The request that uses it.
    pub request: Option<u64>,
    /// Tokens in memory.
    pub cached_tokens: usize,
    /// Tokens of the request's prompt.
    pub prompt_tokens: usize,
    /// Tokens it generated.
    pub generated_tokens: usize,
}

/// Counters since the model was loaded; only ever increasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests that came to an end, whatever end.
    pub requests: u64,
    /// Of those, the ones that failed.
    pub failed: u64,
    /// Tokens of prompts, reused ones included.
    pub prompt_tokens: u64,
    /// Of those, the ones that were in memory already.
    pub reused_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Time spent on prompts.
    pub prefill: Duration,
    /// Time spent on answers.
    pub decode: Duration,
    /// Steps computed.
    pub steps: u64,
    /// Bytes that rows of a step did not have to read, because another row of the same step did.
    pub saved_bytes: u64,
    /// What became of drafts.
    pub speculation: SpeculationStats,
    /// What streaming did.
    pub stream: StreamStats,
}

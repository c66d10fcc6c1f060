//! What goes in and out of a runner.

use hypura_core::plan::Mode;
use hypura_ggml::{Grammar, SamplerOptions, Token};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::shared_memory::SharedMemory;
use crate::error::GenerateError;
use crate::media::{MediaPrompt, Senses};
use crate::session::Outcome;
use crate::session::grow::ContextFacts;
use crate::stream::{Held, StreamStats};

/// What a finished request did.
pub type Finished = Outcome;

/// Gets the events of a request, on the scheduler's thread: it must not block. False: nobody listens any more.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

/// Gets the vectors of texts, once; not scaled to any length. Not called when nobody waits any more.
pub type EmbedSink = Box<dyn FnOnce(Result<Vec<Vec<f32>>, GenerateError>) + Send>;

/// How a runner works.
#[derive(Clone, Debug)]
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
    pub memory: Option<Arc<dyn SharedMemory>>,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self { parallel: 1, max_queue: 512, kv_cache_dir: None, kv_cache_quota_bytes: 8 << 30, memory: None }
    }
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its prompt.
    pub prompt: MediaPrompt,
    /// How to answer.
    pub options: SequenceOptions,
}

/// How to answer a request.
#[derive(Clone, Debug, Default)]
pub struct SequenceOptions {
    /// Most tokens to generate; `None`: until the model ends or the context is full.
    pub max_tokens: Option<u32>,
    /// How to choose tokens.
    pub sampler: SamplerOptions,
    /// What the answer must look like.
    pub grammar: Option<Grammar>,
    /// Strings that end the answer and are not shown.
    pub stops: Vec<String>,
    /// Tell log-probabilities, and those of the likeliest n tokens.
    pub logprobs: Option<u32>,
    /// At least this many tokens of context; clamped to what the plan has room for.
    pub num_ctx: Option<u32>,
    /// Where the context is full, go on without half of what comes after so many tokens of the beginning; otherwise, and after a
    /// prompt with media, the answer ends there.
    pub shift: Option<u32>,
    /// Go on after tokens that end a text.
    pub ignore_end: bool,
    /// Show control tokens as text: the chat parser reads them.
    pub special_pieces: bool,
    /// Tell of every batch of the prompt.
    pub progress: bool,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenInfo {
    /// Its id.
    pub token: Token,
    /// Its bytes; a character may span several tokens.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability before sampling, when asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens there, likeliest first: id, bytes, log-probability.
    pub top: Vec<(Token, Vec<u8>, f32)>,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Event {
    /// It has a sequence.
    Started {
        /// Tokens of its prompt.
        prompt_tokens: u32,
        /// How many of them were in memory already.
        reused_tokens: u32,
        /// How long it waited.
        queued: Duration,
    },
    /// A part of its prompt was computed.
    Progress {
        /// Tokens in memory, reused ones included.
        processed: u32,
        /// Tokens of the prompt.
        total: u32,
        /// Tokens that were in memory before.
        reused: u32,
        /// Time since it started.
        elapsed: Duration,
    },
    /// A piece of the answer: whole characters, never a part of a stop string.
    Text {
        /// The piece.
        text: String,
        /// The tokens it came from; text is held back until it is certain, so there may be several.
        tokens: Vec<TokenInfo>,
    },
    /// It is over. The last event.
    Done(Box<Finished>),
    /// It failed; others go on. The last event.
    Failed(GenerateError),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many wait.
    #[error("too many requests are waiting ({0}): try again later")]
    QueueFull(usize),
    /// The model is being unloaded.
    #[error("the model is being unloaded")]
    Stopped,
    /// The prompt does not fit into the largest context that the plan has room for.
    #[error("the prompt has {prompt} tokens and the context holds {context}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// The grammar cannot be used.
    #[error("{0}")]
    BadGrammar(String),
    /// The prompt has no tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt has places of media that it does not have.
    #[error("the prompt and its media do not fit each other")]
    BadMedia,
    /// A token that the vocabulary does not have.
    #[error("the vocabulary has no token {0}")]
    BadToken(Token),
}

/// What never changes while a model is loaded.
#[derive(Clone, Debug)]
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
    pub senses: Senses,
    /// Whether it is made for embeddings (its metadata names a pooling).
    pub is_embedding_model: bool,
    /// Requests at once.
    pub parallel: usize,
    /// How it runs.
    pub mode: Mode,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Weights in memory, slots and cells excluded.
    pub resident_bytes: u64,
    /// Name of the reader; `None` when nothing streams.
    pub reader: Option<&'static str>,
    /// How long loading took.
    pub load_time: Duration,
    /// What the user may want to know (a fallback that was taken).
    pub notes: Vec<String>,
}

/// A snapshot of a runner.
#[derive(Clone, Debug, Default)]
pub struct RunnerStatus {
    /// Tokens that one sequence may have now.
    pub context_length: u32,
    /// Tokens that all sequences together may have now.
    pub context_cells: u32,
    /// Bytes held now: weights, slots, cells, KV cache, compute buffers, and the process for this model.
    pub memory_bytes: u64,
    /// Bytes of weights that are not in memory, resident or in a slot.
    pub weights_on_disk_bytes: u64,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Requests that run.
    pub active: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Every sequence of the context.
    pub slots: Vec<SlotStatus>,
    /// For estimates of a larger context.
    pub(crate) context: ContextFacts,
    /// What streaming still held after the last graph: no pins, or something leaks.
    pub held: Held,
    /// Why idle conversations are no longer kept on disk, when that was asked for.
    pub kv_cache_error: Option<String>,
    /// Since the model was loaded.
    pub totals: Totals,
}

/// One sequence of the context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotStatus {
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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
    /// What streaming did.
    pub stream: StreamStats,
}

//! What the server needs of an engine: small traits, so that every HTTP test also runs against a scripted one.
//!
//! [`Backend`] plans and loads; [`Engine`] is one loaded model that answers many requests at once. Nothing here knows
//! tokio: `submit` returns at once and its sink is called on a thread of the engine. All other calls are quick and may be
//! made while the model works, except [`Backend::plan`], [`Plan::load`] and [`Engine::stop`], which block.

use hypura_engine::budget::SharedMemory;
use hypura_engine::media::MediaFile;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

use crate::Failure;
use crate::job::{Format, Think, ToolCall, ToolChoice};
use hypura_store::ModelEntry;

/// A token id.
pub type Token = i32;

/// Plans and loads models.
pub trait Backend: Send + Sync {
    /// What loading this model within `free_bytes` would be like. Reads the header of the file. Blocks.
    ///
    /// # Errors
    /// The file cannot be read or is no model; not: too little memory, see [`Fit::TooSmall`].
    fn plan(&self, model: &ModelEntry, settings: &LoadWish, free_bytes: u64) -> Result<Fit, Failure>;
}

/// How a model is to be loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadWish {
    /// Tokens of context that the first request wants.
    pub context: Option<u32>,
}

/// How a model fits a given memory.
pub enum Fit {
    /// All of it.
    Resident(Box<dyn Plan>),
    /// Its weights will stream.
    Streaming(Box<dyn Plan>),
    /// Not even so; the sentence says what is needed.
    TooSmall(Failure),
}

/// A plan that can be carried out.
pub trait Plan: Send {
    /// Bytes that the loaded model will hold.
    fn bytes(&self) -> u64;
    /// Loads the model. Blocks.
    ///
    /// # Errors
    /// Why not, in a sentence for the client.
    fn load(self: Box<Self>, host: &dyn LoadHost) -> Result<Arc<dyn Engine>, Failure>;
}

/// Whoever has a model loaded.
pub trait LoadHost {
    /// The load got on. False: it is to end, nobody will use the model.
    fn advanced(&self) -> bool;
    /// The memory of all models, of which a loaded one may ask more.
    fn memory(&self) -> Arc<dyn SharedMemory>;
}

/// Facts of a loaded model that do not change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineFacts {
    /// Tokens of context that the model was trained with.
    pub context_train: u32,
    /// Numbers in an embedding.
    pub embedding_length: u32,
    /// Whether the chat template knows tools.
    pub tools: bool,
    /// Whether the chat template knows reasoning.
    pub thinking: bool,
    /// Whether the vocabulary has tokens for filling a gap.
    pub infill: bool,
    /// Bytes of the model's files.
    pub file_bytes: u64,
    /// `full-resident`, `expert-streaming`, `dense-streaming` or `mixed-streaming`.
    pub mode: String,
    /// Requests that it works on at once.
    pub parallel: u32,
}

/// How a loaded model is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineStatus {
    /// Tokens of context that one sequence has.
    pub context_length: u32,
    /// Bytes held in RAM.
    pub host_bytes: u64,
    /// Bytes held on GPUs.
    pub device_bytes: u64,
    /// Bytes of weights that are in neither: they are read as they are needed.
    pub disk_bytes: u64,
    /// Requests that are being worked on.
    pub active: u32,
    /// Requests that wait.
    pub queued: u32,
    /// Its sequences: those that run and those that are remembered.
    pub sequences: Vec<EngineSequence>,
    /// What streaming holds between steps.
    pub held: EngineHeld,
    /// Totals since the model was loaded.
    pub totals: EngineTotals,
}

/// One sequence of an engine's context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineSequence {
    /// Whether a request uses it.
    pub busy: bool,
    /// Tokens in memory.
    pub cached_tokens: u32,
    /// Tokens of the request's prompt.
    pub prompt_tokens: u32,
    /// Tokens it generated.
    pub generated_tokens: u32,
}

/// What streaming holds between steps; without requests no pins and no reads, or something leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineHeld {
    /// Slots that must not be evicted.
    pub pins: u32,
    /// Slots that are being filled.
    pub loading_slots: u32,
    /// Cells in use.
    pub cells: u32,
    /// Reads that are out.
    pub reads: u32,
}

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineTotals {
    /// Tokens of prompts that were computed.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were in the cache.
    pub reused_tokens: u64,
    /// Time of reading prompts.
    pub prompt_time: Duration,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Time of generating.
    pub generated_time: Duration,
    /// Decode calls.
    pub decodes: u64,
    /// Bytes of weights read from the disk.
    pub bytes_read: u64,
    /// Experts found in memory.
    pub hits: u64,
    /// Experts that had to be read.
    pub misses: u64,
    /// Time in which the computation waited for the disk.
    pub stalled: Duration,
    /// Bytes that did not have to be read because sequences shared experts.
    pub bytes_shared: u64,
}

/// A conversation for the chat template.
#[derive(Clone, Debug, Default)]
pub struct ChatInput {
    /// Messages in OpenAI's shape; where a medium is, there is a part of type `media_marker`.
    pub messages: Vec<Value>,
    /// The pictures and sounds of each message, in the order of their places.
    pub media: Vec<Vec<MediaFile>>,
    /// Tools in OpenAI's shape.
    pub tools: Vec<Value>,
    /// Which may be called.
    pub tool_choice: ToolChoice,
    /// Whether several may be called at once.
    pub parallel_tool_calls: bool,
    /// What the answer must look like.
    pub format: Format,
    /// Whether to think.
    pub think: Option<Think>,
    /// The last message is the beginning of the answer.
    pub continues: bool,
    /// Jinja source instead of the model's template.
    pub template: Option<String>,
}

/// A prompt ready for [`Engine::submit`].
pub struct Prompt {
    /// Its tokens; negative ones stand for media.
    pub tokens: Vec<Token>,
    /// Its media, in the engine's own form.
    pub media: Option<MediaHandle>,
    /// Strings that end the answer.
    pub stops: Vec<String>,
    /// What the answer must look like, in the engine's own form.
    pub grammar: Option<GrammarHandle>,
    /// Splits the answer; `None`: all of it is content.
    pub parser: Option<Box<dyn AnswerParser>>,
}

/// A grammar made by the engine that will use it.
pub type GrammarHandle = Box<dyn std::any::Any + Send>;
/// Media read by the engine that will be shown them.
pub type MediaHandle = Box<dyn std::any::Any + Send>;

/// A part of an answer that a parser told apart.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerPart {
    /// Reasoning.
    Thinking(String),
    /// The answer.
    Content(String),
    /// A call of a tool, whole.
    ToolCall(ToolCall),
}

/// Splits the text of an answer into reasoning, content and calls as it comes.
pub trait AnswerParser: Send {
    /// More text.
    fn push(&mut self, text: &str) -> Vec<AnswerPart>;
    /// The end of the text. `complete`: the model ended it; otherwise it was cut and may hold half a call.
    fn finish(&mut self, complete: bool) -> Vec<AnswerPart>;
}

/// How to choose tokens.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the table of options in docs/serving.md")]
pub struct Sampling {
    pub temperature: f32,
    pub top_k: i32,
    pub top_p: f32,
    pub min_p: f32,
    pub typical_p: f32,
    pub repeat_last_n: i32,
    pub repeat_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub seed: Option<u32>,
}

/// A prompt to continue.
pub struct EngineRequest {
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Its media.
    pub media: Option<MediaHandle>,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// Strings that end it.
    pub stops: Vec<String>,
    /// What it must look like.
    pub grammar: Option<GrammarHandle>,
    /// Log-probabilities wanted, with so many alternatives.
    pub logprobs: Option<u32>,
    /// Context wanted, at least.
    pub num_ctx: Option<u32>,
    /// Where the context is full, go on without half of what comes after so many tokens of the beginning.
    pub shift: Option<u32>,
    /// Control tokens come as text (an [`AnswerParser`] reads them).
    pub special_pieces: bool,
}

/// A generated token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineToken {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Alternatives: bytes and logarithm.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// What an engine tells about a request.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// It left the queue.
    Started {
        /// Tokens of the prompt that were in the cache.
        reused: u32,
    },
    /// Its prompt is being read.
    Progress {
        /// Tokens done, the reused ones included.
        processed: u32,
        /// Tokens in all.
        total: u32,
        /// Tokens that were in the cache.
        reused: u32,
        /// Time since it left the queue.
        elapsed: Duration,
    },
    /// Text, whole characters only; stop strings never come.
    Text {
        /// The text; may be empty.
        text: String,
        /// The tokens it came from, when log-probabilities were asked for.
        tokens: Vec<EngineToken>,
    },
    /// The end.
    Done(Box<EngineDone>),
    /// The end of this request alone; others go on.
    Failed(Failure),
}

/// Why an engine stopped generating.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EngineFinish {
    /// The model ended the text, or it was told to stop.
    #[default]
    End,
    /// This stop string came.
    StopString(String),
    /// A limit of tokens was reached.
    Length,
}

/// What a request took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineDone {
    /// Why it ended.
    pub finish: EngineFinish,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// How many of them were in the cache.
    pub reused_tokens: u32,
    /// Generated tokens.
    pub tokens: Vec<Token>,
    /// Reading the prompt.
    pub prefill: Duration,
    /// Generating.
    pub decode: Duration,
    /// Bytes of weights read from the disk.
    pub bytes_read: u64,
    /// Experts found in memory.
    pub hits: u64,
    /// Experts that had to be read.
    pub misses: u64,
}

/// Gets the events of a request; false means that nobody listens any more.
pub type EventSink = Box<dyn FnMut(EngineEvent) -> bool + Send>;
/// Gets the vectors of a request, once.
pub type EmbedSink = Box<dyn FnOnce(Result<Vec<Vec<f32>>, Failure>) + Send>;

/// A request in an engine; dropping it cancels what is not done.
pub trait Ticket: Send + Sync {}

/// One loaded model.
pub trait Engine: Send + Sync {
    /// What does not change.
    fn facts(&self) -> &EngineFacts;
    /// What does. Never waits for the work.
    fn status(&self) -> EngineStatus;
    /// Whether it can still answer. One that cannot is replaced by the next request.
    fn is_alive(&self) -> bool {
        true
    }
    /// The context that a request which asks for `num_ctx` gets.
    fn context_for(&self, num_ctx: Option<u32>) -> u32;
    /// Most tokens of a text to embed in a request that asks for `num_ctx`.
    fn embed_limit(&self, num_ctx: Option<u32>) -> u32 {
        self.context_for(num_ctx)
    }
    /// A conversation as a prompt.
    ///
    /// # Errors
    /// 400 or 500 with the template's or grammar's words.
    fn render(&self, chat: &ChatInput) -> Result<Prompt, Failure>;
    /// A conversation as the text that the template makes of it.
    ///
    /// # Errors
    /// As [`Engine::render`].
    fn render_text(&self, chat: &ChatInput) -> Result<String, Failure>;
    /// Tokens of a text. `begin` adds what the model wants at the beginning; `control` reads control tokens in it.
    fn tokenize(&self, text: &str, begin: bool, control: bool) -> Vec<Token>;
    /// Tokens of a text with media, as by [`Engine::tokenize`] with both wishes: each `hypura_engine::media::marker` in it is the
    /// next of `media`. Decodes them.
    ///
    /// # Errors
    /// 400 for media that cannot be used, and where the model lacks the sense.
    fn see(&self, text: &str, media: &[MediaFile]) -> Result<(Vec<Token>, Option<MediaHandle>), Failure>;
    /// The text of tokens, control tokens included.
    fn detokenize(&self, tokens: &[Token]) -> String;
    /// The prompt that has the gap between two texts filled; `None` where the vocabulary cannot.
    fn infill(&self, before: &str, after: &str) -> Option<Vec<Token>>;
    /// The grammar of a format, for prompts without a template.
    ///
    /// # Errors
    /// 400 with what is wrong with the schema.
    fn grammar(&self, format: &Format) -> Result<Option<GrammarHandle>, Failure>;
    /// Queues a prompt.
    ///
    /// # Errors
    /// 400 (too long, bad grammar), 503 (queue full).
    fn submit(&self, request: EngineRequest, sink: EventSink) -> Result<Box<dyn Ticket>, Failure>;
    /// Queues texts to embed; the vectors are not scaled.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    fn embed(&self, inputs: Vec<Vec<Token>>, sink: EmbedSink) -> Result<Box<dyn Ticket>, Failure>;
    /// Finishes (`drain`) or aborts what runs, then frees the model. Blocks.
    fn stop(&self, drain: bool);
}

//! The only user of `llama-cpp-sys-4`: safe wrappers of llama.cpp, and the decorated ggml device through which Hypura
//! decides where weights live.
//!
//! - [`device`] registers a device that wraps the CPU device and forwards everything except tensors in our own
//!   [`buffer_type`]s.
//! - [`graph`] hands every computed graph to an [`Executor`] (the engine), which runs it in pieces on the inner
//!   backend and binds streamed weights to the memory it chose.
//! - [`media`] turns pictures into rows that models read in place of tokens.
//! - [`model`], [`context`], [`batch`], [`sampler`], [`grammar`], [`vocab`] and [`chat`] are thin and safe.
//!
//! Invariants: no panic and no C++ exception crosses the language border ([`guard`]); a failure inside a callback
//! becomes the error of the decode that caused it; nothing here knows about files, caches or policies.

mod abi;
mod backend;
pub mod batch;
mod buffer;
mod buffer_type;
pub mod chat;
pub mod context;
mod device;
pub mod error;
pub mod grammar;
pub mod graph;
mod guard;
mod interlude;
mod log;
pub mod measure;
pub mod media;
mod memory_use;
pub mod model;
pub mod sampler;
mod sys;
pub mod system;
mod threads;
pub mod vocab;

pub use batch::{Batch, RowsPart};
pub use chat::{
    ChatCaps, ChatDelta, ChatError, ChatParser, ChatParserState, ChatPrompt, ChatRequest, ChatTemplates,
    ReasoningSplit, ToolChoice, check_grammar, json_schema_to_grammar,
};
pub use context::{Context, ContextOptions, KvType, Pooling};
pub use error::{DecodeError, ExecError, LoadError};
pub use grammar::{Grammar, GrammarKind, GrammarTrigger};
pub use graph::{
    ChainRow, Executor, ExpertChain, GraphRun, MatMul, MoeIds, RowGroup, SlabBinding, StreamedKind,
    StreamedOp, WeightId,
};
pub use media::{
    MediaChunk, MediaError, Medium, Projector, ProjectorFacts, ProjectorUse, PromptPart, PromptPiece,
    RowPlaces,
};
pub use memory_use::{DeviceMemoryUse, MemoryUse};
pub use model::{LoadMode, LoadOptions, Model, PendingModel, PendingTensor};
pub use sampler::{SampleError, Sampler, SamplerOptions};
pub use vocab::{Token, Vocab};

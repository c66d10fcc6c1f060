//! The only user of `llama-cpp-sys-4`: safe wrappers of llama.cpp, and the decorated ggml device through
//! which Hypura decides where weights live.
//!
//! - [`device`] puts a device of ours in front of each of ggml's: it forwards everything but what concerns
//!   weights in our own kinds of memory ([`buffer`]).
//! - [`exec`] hands every graph of such a device to an [`Executor`] (the engine), which runs it in pieces on
//!   the inner backend and binds streamed weights to the memory it chose ([`memory`]).
//! - [`media`] turns pictures into rows that models read in place of tokens.
//! - `quantize` is llama.cpp's quantiser: files in, files out.
//! - [`libraries`]: backends that were not compiled in; `kernels`: the CPU's, for its very processor.
//! - [`crash`]: what a process says that C++ ends.
//! - [`model`], [`context`], [`batch`], [`sampler`], [`grammar`], [`vocab`] and [`chat`] are thin and safe.
//!
//! Invariants: no panic and no C++ exception crosses the language border ([`guard`]); a failure inside a
//! callback becomes the error of the decode that caused it; nothing here knows about caches or policies, nor
//! about files, but for what llama.cpp opens itself, [`libraries`] and `kernels`.

pub mod batch;
mod buffer;
pub mod chat;
mod constraint;
pub mod context;
pub mod crash;
#[cfg(target_os = "linux")]
mod cuda_pages;
mod deep_stack;
mod device;
pub mod error;
mod exec;
mod expected;
pub mod grammar;
mod guard;
mod kernels;
pub mod libraries;
mod log;
mod mask_thread;
pub mod measure;
pub mod media;
mod memory;
mod memory_use;
pub mod model;
mod quantize;
mod rules;
pub mod sampler;
mod schema;
pub mod sim;
mod sys;
pub mod system;
mod threads;
pub mod vocab;

pub use batch::{Batch, RowsPart};
pub use buffer::{DeviceTensor, TensorMemory, WeightMemory};
pub use chat::{
    ChatCaps, ChatDelta, ChatError, ChatParser, ChatParserState, ChatPrompt, ChatRequest, ChatTemplates,
    ReasoningSplit, ToolChoice, check_grammar, try_template,
};
pub use context::{Context, ContextOptions, KvType, Pooling, nodes_of};
pub use device::Device;
pub use error::{DecodeError, ExecError, LoadError};
pub use exec::{
    ChainRow, DeviceEvent, DeviceExecutor, Executor, ExpertChain, Graph, GraphRun, MatMul, MoeIds,
    ProductGroup, RowGroup, RowsOp, SlotBinding, StreamedKind, StreamedOp, Uploader, WeightId,
};
pub use expected::{ExpectedTensor, expected_tensors};
pub use grammar::{Grammar, GrammarKind, GrammarTrigger};
pub use media::{
    MediaChunk, MediaError, Medium, Projector, ProjectorFacts, ProjectorUse, PromptPart, PromptPiece,
    RowPlaces,
};
pub use memory::{Bytes, DeviceBuffer, HostMemory, Region};
pub use memory_use::{DeviceMemoryUse, MemoryUse};
pub use model::{LoadMode, LoadOptions, Model, PendingModel, PendingTensor, Placement};
pub use quantize::{QuantizeError, is_quantization, quantize};
pub use sampler::{SampleError, Sampler, SamplerOptions};
pub use schema::SchemaError;
pub use threads::BackendThreads;
pub use vocab::{Token, Vocab};

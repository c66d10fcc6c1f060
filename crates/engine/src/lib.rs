//! The engine: from a plan to a loaded model, the streaming of weights, and the one generation loop.
//!
//! - [`source`]: the files of a model, headers only
//! - [`profile`]: this machine, measured once and remembered
//! - [`advise`]: what a model will do here, from its header alone
//! - [`device`]: which GPU computes, and how much of its memory may be used
//! - [`doctor`]: what of this machine helps or hinders
//! - [`iobench`]: raw reads, for measuring the disk
//! - [`load`]: plan, load, and join model, reader and executor
//! - [`machine`]: memory, disk and process, for budgets and reports
//! - [`media`]: pictures and sounds in prompts
//! - [`stream`]: graphs computed with weights that are not all in memory
//! - [`workers`]: other machines whose memory takes part
//! - [`threads`]: how many threads compute, while others use the cores
//! - [`request`]: what is asked of a model, and what comes back
//! - [`budget`]: memory that several models share
//! - [`session`]: the generation loop
//! - [`serve`]: the same loop for many users: queue, scheduler thread, handles
//!
//! The front ends (`hypura`) see this crate and `hypura-core`, never `ggml` or `storage`; what they need of
//! those is re-exported here.
#![deny(unsafe_code)]

pub mod advise;
pub mod baseline;
pub mod budget;
pub mod device;
pub mod doctor;
pub mod error;
mod hex;
pub mod iobench;
pub mod load;
pub mod machine;
pub mod media;
pub mod profile;
mod prompt;
pub mod request;
pub mod serve;
pub mod session;
pub mod source;
pub mod stream;
pub mod threads;
pub mod workers;

pub use hypura_core::plan::KvType;
pub use hypura_ggml::{
    ChatCaps, ChatDelta, ChatError, ChatParser, ChatParserState, ChatPrompt, ChatRequest, DecodeError,
    Grammar, GrammarKind, GrammarTrigger, QuantizeError, ReasoningSplit, SampleError, SamplerOptions, Token,
    ToolChoice, Vocab, check_grammar, crash, is_quantization, libraries, quantize, system, try_template,
};
pub use hypura_storage::{ReaderConfig, ReaderKind};

/// The simulated disk and the simulated device, for tests of everything above them.
pub mod sim {
    pub use hypura_ggml::sim::{SimDevice, SimDeviceOptions};
    pub use hypura_storage::reader::{Eio, Latency, SimConfig, Stall};
}

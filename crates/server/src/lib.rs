//! The HTTP server: a drop-in Ollama over models that need not fit in memory.
//!
//! - [`serve`]: the operation: listen, log, drain, stop; `connections`: which are open, `last_resort`: the
//!   end that nothing holds up
//! - [`http`]: the router and what surrounds every route ([`guard`], [`origin`], [`bodies`], [`refusal`])
//! - [`state`]: what every request can reach
//! - [`recent`]: answers that later requests may refer to
//! - [`body`], [`respond`]: JSON in, JSON and streams out; `coding`: compressed bodies; `aside`: large ones
//! - [`notes`]: what is told of parts that a conversation has no place for
//! - [`job`]: what front ends ask for, in no protocol's words; [`jobs`] does it
//! - [`models`]: which models there are, and which are loaded; [`runner`]: a process for each of those
//! - [`ollama`]: the native front end; [`openai`]: OpenAI's and llama-server's;
//!   [`anthropic`]: Anthropic's
//! - `quantizer`: llama.cpp's quantiser for the store
//! - `page`: the page at `/ui`
//! - [`status`]: what whoever watches is told
//! - [`metrics`]: health and numbers, some of them of [`counters`]
//!
//! Invariants: a request that only wants to know something never waits for a model; a client that disconnects
//! takes its work with it; nothing that a client reads names a path of this machine.
#![deny(unsafe_code)]

pub mod address;
pub mod anthropic;
mod aside;
pub mod bodies;
pub mod body;
mod coding;
mod connections;
pub mod counters;
mod failure;
pub mod guard;
pub mod http;
mod ids;
pub mod job;
pub mod jobs;
pub mod keep_alive;
mod last_resort;
pub mod metrics;
pub mod models;
pub mod notes;
pub mod ollama;
pub mod openai;
pub mod options;
pub mod origin;
pub mod origins;
mod page;
mod quantizer;
pub mod recent;
pub mod refusal;
pub mod request_log;
pub mod respond;
pub mod runner;
pub mod serve;
mod settings;
pub mod state;
pub mod status;
pub mod time;

pub use self::http::router;
pub use failure::{Cause, Failure, without_paths};
pub use quantizer::{ProcessQuantizer, quantize_here};
pub use settings::HttpSettings;
pub use state::Server;

//! A loaded model that serves many requests at once.
//!
//! - `types`: settings, and what a runner tells about itself
//! - `runner`: the handle: submit, cancel, status, stop
//! - `queue`: what waits, and what is being computed right now
//! - `live`: how fast it goes right now
//! - `scheduler`: the thread that owns the model and steps it
//! - `text_tools`: tokens, text and chat templates from any thread
//!
//! One thread owns the model, its context and its samplers; handles talk to it through the queue. Requests
//! join and leave between steps ([`crate::session`] has the loop). No other thread ever waits for a step:
//! status is a snapshot.

mod live;
mod queue;
mod runner;
mod scheduler;
mod text_tools;
mod types;

pub use live::{Live, Rates};
pub use runner::{RequestHandle, Runner};
pub use text_tools::TextTools;
pub use types::{MemoryParts, RunnerInfo, RunnerSettings, RunnerStatus, SequenceStatus, Totals};

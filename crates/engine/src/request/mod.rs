//! The vocabulary between callers and the generation loop: plain data, which can be sent to another process.
//!
//! Below both sides: it knows neither queues nor batches nor models.
//!
//! - `options`: what is asked for
//! - `prompt`: what is to be continued
//! - `event`: what comes back
//! - `speculation`: what became of drafts
//! - `error`: what comes back instead
//! - `hash`: equal logits, equal hashes

mod error;
mod event;
mod hash;
mod options;
mod prompt;
mod speculation;
#[cfg(test)]
mod tests;

pub use error::{RequestError, RequestErrorKind, SubmitError};
pub use event::{EmbedSink, Event, Finish, Outcome, Sink, TokenInfo};
pub use hash::LogitsHash;
pub use options::{Options, REPEAT_LIMIT, Request};
pub use prompt::{MediaFile, Prompt, PromptPart};
pub use speculation::{POSITIONS, SpeculationStats};

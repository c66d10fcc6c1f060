//! The one generation loop: sequences that join and leave between steps, used by every front end.
//!
//! - `single`: a [`Session`], which is the loop with a single sequence, driven on the caller's thread
//! - `batcher`: the loop: one step for all running sequences
//! - `divide`: who gets how much of a step
//! - `active`: the requests that run
//! - `sequence`: one request: its tokens, its text
//! - `media`, `encoded`: steps of rows that are no tokens
//! - `embed`: embeddings of texts
//! - `kv`: who has which rows of the KV cache
//! - `speculate`: drafts for what runs
//! - `repeats`: answers that say one thing over and over
//! - `text`, `logprobs`: from tokens and logits to what is shown
//!
//! The server's scheduler ([`crate::serve`]) drives the same loop for many.

pub(crate) mod active;
pub(crate) mod batcher;
mod divide;
#[cfg(test)]
mod draft_tests;
pub(crate) mod embed;
mod encoded;
pub(crate) mod kv;
mod logprobs;
mod media;
mod repeats;
pub(crate) mod sequence;
mod single;
mod speculate;
mod text;

pub use single::{GenerateOptions, Session, open};
pub use text::{Shown, TextStream};

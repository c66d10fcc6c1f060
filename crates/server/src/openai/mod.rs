//! OpenAI's protocol, as Ollama and llama-server speak it: `/v1/…`, and llama-server's own small endpoints.
//!
//! - [`chat`], [`completions`], [`embeddings`], [`models`]: one endpoint each
//! - [`content`]: messages, tools and pictures, shared with the other conversations
//! - [`transcriptions`]: sounds in a [`form`], and their words
//! - [`wire`]: the pieces of an answer as chunks and whole objects
//! - [`responses`]: the newer conversation, with its own items and events
//! - [`llama`]: tokenize, detokenize, apply-template, props, slots
//!
//! Requests are read leniently (unknown keys ignored, null is absent), answered strictly (every field that a
//! client's types want is there).

mod chat;
mod completions;
mod content;
mod embeddings;
mod form;
mod llama;
mod models;
mod responses;
mod timings;
mod transcriptions;
mod wire;

pub(super) use content::{arguments, effort, name_of_call, role};
pub(super) use wire::entry;

use std::sync::Arc;

use axum::Router;

use super::state::Server;
pub(crate) use crate::ids::random_hex;

/// The routes of this protocol.
pub fn routes() -> Router<Arc<Server>> {
    Router::new()
        .merge(chat::routes())
        .merge(completions::routes())
        .merge(embeddings::routes())
        .merge(models::routes())
        .merge(responses::routes())
        .merge(transcriptions::routes())
        .merge(llama::routes())
}

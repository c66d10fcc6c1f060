//! OpenAI's protocol, as Ollama and llama-server speak it: `/v1/…`, and llama-server's own small endpoints.
//!
//! - [`chat`], [`completions`], [`embeddings`], [`models`]: one endpoint each
//! - [`content`]: messages, tools and pictures, shared with the other conversations
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
mod llama;
mod models;
mod responses;
mod timings;
mod wire;

pub(super) use content::{arguments, effort, name_of_call, role};
pub(super) use wire::entry;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::response::Response;
use serde_json::Value;

use super::state::Server;
use super::{Failure, refusal, time};
pub(crate) use crate::ids::random_hex;

/// The routes of this protocol.
pub fn routes() -> Router<Arc<Server>> {
    Router::new()
        .merge(chat::routes())
        .merge(completions::routes())
        .merge(embeddings::routes())
        .merge(models::routes())
        .merge(responses::routes())
        .merge(llama::routes())
}

/// An error in this protocol's shape.
fn failure(failure: &Failure) -> Response {
    refusal::openai(failure)
}

/// Bytes of a server-sent event that holds `value`.
fn event(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

/// Seconds since 1970, now.
pub(super) fn seconds() -> u64 {
    time::unix_seconds(SystemTime::now())
}

//! Ollama's own protocol under `/api`.
//!
//! - [`general`]: what is there, who are you
//! - [`generate`], [`chat`], [`embed`]: work
//! - [`list`]: which models there are and which are loaded
//! - [`manage`], [`create`], [`pull`], [`blobs`]: changes of the store
//! - [`wire`]: streams as lines of JSON
//! - [`request`]: what the requests have in common

mod blobs;
mod chat;
mod create;
mod embed;
mod general;
mod generate;
mod list;
mod manage;
mod pull;
mod request;
mod version;
mod wire;

use std::sync::Arc;

use axum::Router;

use super::state::Server;
pub use version::OLLAMA_VERSION;

/// The routes of this protocol.
pub fn routes() -> Router<Arc<Server>> {
    Router::new()
        .merge(general::routes())
        .merge(generate::routes())
        .merge(chat::routes())
        .merge(embed::routes())
        .merge(list::routes())
        .merge(manage::routes())
        .merge(create::routes())
        .merge(pull::routes())
        .merge(blobs::routes())
}

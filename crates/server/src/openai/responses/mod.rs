//! `POST /v1/responses`. A request brings its whole conversation, or refers to recent answers; nothing is
//! written to a disk.
//!
//! - [`request`]: bodies (also compressed with zstd, as Codex sends them) → jobs
//! - [`input`]: input items → messages
//! - [`tools`]: tools as the model and as the client know them
//! - [`items`]: pieces → output items
//! - [`wire`]: items as one object or as numbered events

mod input;
mod items;
mod request;
mod tools;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;

use crate::state::Server;
use crate::{Failure, body, jobs, refusal, respond};
use request::Request;
use wire::{Answer, Remembered};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/v1/responses", post(responses))
}

async fn responses(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    answer(&server, &bytes, received).await.unwrap_or_else(|failure| refusal::openai(&failure))
}

async fn answer(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<Response, Failure> {
    let request: Request = body::request(bytes)?;
    let stream = request.stream.unwrap_or(false);
    let items = request.items(&server.recent)?;
    let (echo, names, store) = (request.echo(), request.tool_names(), request.store());
    let job = request.job(&items, received)?;
    let memory = store.then(|| Remembered { server: Arc::clone(server), items });
    let wire = Answer::new(echo, names, memory);
    let pieces = jobs::chat(server, job).await?;
    if stream {
        return Ok(respond::stream_pieces(server, pieces, wire).await);
    }
    Ok(respond::whole(server, pieces, move |result| wire.whole(result)).await)
}

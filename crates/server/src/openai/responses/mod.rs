//! `POST /v1/responses`, without memory: nothing is stored, every request brings its whole conversation.
//!
//! - [`request`]: bodies (also compressed with zstd, as Codex sends them) → jobs
//! - [`items`]: pieces → output items
//! - [`wire`]: items as one object or as numbered events

mod items;
mod request;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::HeaderMap;

use crate::state::Server;
use crate::{Failure, body, jobs, respond};
use request::Request;
use wire::Answer;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/v1/responses", post(responses))
}

async fn responses(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body::Whole(bytes): body::Whole,
) -> Response {
    let received = Instant::now();
    answer(&server, &headers, bytes, received).await.unwrap_or_else(|failure| super::failure(&failure))
}

async fn answer(
    server: &Arc<Server>,
    headers: &HeaderMap,
    bytes: Bytes,
    received: Instant,
) -> Result<Response, Failure> {
    let plain = request::decompressed(headers, bytes)?;
    let request: Request = body::request(&plain)?;
    let stream = request.stream.unwrap_or(false);
    let echo = request.echo();
    let job = request.job(received)?;
    let wire = Answer::new(echo);
    let pieces = jobs::chat(server, job).await?;
    if stream {
        return Ok(respond::stream_pieces(server, pieces, wire).await);
    }
    Ok(respond::whole(server, pieces, move |result| wire.whole(result)).await)
}

//! Anthropic's protocol: `POST /v1/messages` and `POST /v1/messages/count_tokens`.
//!
//! - [`request`]: bodies → jobs
//! - [`wire`]: pieces → content blocks, whole or as events

mod request;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::state::Server;
use super::{Failure, body, jobs, refusal, respond};
use request::Request;
use wire::Answer;

/// The routes of this protocol.
pub fn routes() -> Router<Arc<Server>> {
    Router::new().route("/v1/messages", post(messages)).route("/v1/messages/count_tokens", post(count_tokens))
}

async fn messages(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    answer(&server, &bytes, received).await.unwrap_or_else(|error| refusal::anthropic(&error))
}

async fn answer(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<Response, Failure> {
    let request: Request = body::request(bytes)?;
    let stream = request.stream.unwrap_or(false);
    let job = request.job(received, true)?;
    let stop_sequences = job.base.options.stop.clone().unwrap_or_default();
    let wire = Answer::new(job.base.model.clone(), stop_sequences);
    let pieces = jobs::chat(server, job).await?;
    if stream {
        return Ok(respond::stream_pieces(server, pieces, wire).await);
    }
    Ok(respond::whole(server, pieces, move |result| wire.whole(result)).await)
}

async fn count_tokens(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    let work = Arc::clone(&server);
    respond::patient(&server, async move {
        match count(&work, &bytes, received).await {
            Ok(count) => respond::json(StatusCode::OK, &json!({"input_tokens": count})),
            Err(error) => refusal::anthropic(&error),
        }
    })
    .await
}

async fn count(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<usize, Failure> {
    let request: Request = body::request(bytes)?;
    jobs::count_chat(server, request.job(received, false)?).await
}

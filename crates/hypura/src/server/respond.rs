//! Answers on the wire: JSON, errors in the shape of each protocol, and streams that are flushed piece by piece.
//!
//! A stream never goes silent: where there is nothing to say for a while it sends its protocol's heartbeat. Headers go
//! out as soon as the request is known to be good, so that a bad one still gets its real status; but after
//! `headers_after` they go out in any case, because clients give up on a server that says nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::Failure;
use super::job::Piece;
use super::jobs::{Collected, PieceStream};
use super::state::Server;

/// Content type of native answers.
pub const JSON: &str = "application/json; charset=utf-8";
/// Content type of native streams.
pub const NDJSON: &str = "application/x-ndjson";

/// What a front end makes of pieces.
pub trait Wire: Send + 'static {
    /// The bytes of a piece; empty: nothing to say. `Done` and `Failed` are the last ones.
    fn piece(&mut self, piece: Piece) -> Bytes;
    /// What keeps the connection alive.
    fn heartbeat(&mut self) -> Bytes;
    /// Content type of the stream.
    fn content_type(&self) -> &'static str;
    /// An answer to a request that failed before anything was sent.
    fn failure(&self, failure: &Failure) -> Response;
}

/// Streams the pieces of a job.
pub async fn stream_pieces(server: &Arc<Server>, mut pieces: PieceStream, wire: impl Wire) -> Response {
    if let Ok(Err(failure)) = tokio::time::timeout(server.http.headers_after, pieces.opening()).await {
        return wire.failure(&failure);
    }
    let content_type = wire.content_type();
    let state = Streaming { pieces, wire, heartbeat: server.http.heartbeat, ended: false };
    let body = Body::from_stream(stream::unfold(state, Streaming::next));
    with_type(StatusCode::OK, content_type, body)
}

struct Streaming<W> {
    pieces: PieceStream,
    wire: W,
    heartbeat: Duration,
    ended: bool,
}

impl<W: Wire> Streaming<W> {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        let bytes = loop {
            let bytes = match tokio::time::timeout(self.heartbeat, self.pieces.next()).await {
                Err(_) => self.wire.heartbeat(),
                Ok(Some(piece)) => {
                    self.ended = matches!(piece, Piece::Done(_) | Piece::Failed(_));
                    self.wire.piece(piece)
                }
                Ok(None) => {
                    self.ended = true;
                    let lost = Failure::internal("the answer was cut off: the server is shutting down");
                    self.wire.piece(Piece::Failed(lost))
                }
            };
            if self.ended || !bytes.is_empty() {
                break bytes;
            }
        };
        Some((Ok(bytes), self))
    }
}

/// The whole answer of a job as one body that `write` makes. Where that takes long, white space keeps the connection
/// alive, which JSON allows before its first character; a failure after that is an error body under status 200.
pub async fn whole(
    server: &Arc<Server>,
    pieces: PieceStream,
    write: impl FnOnce(Result<Collected, Failure>) -> Response + Send + 'static,
) -> Response {
    let mut collected = Box::pin(pieces.collect());
    if let Ok(result) = tokio::time::timeout(server.http.headers_after, &mut collected).await {
        return write(result);
    }
    let heartbeat = server.http.heartbeat;
    let state = Some((collected, write));
    let body = stream::unfold(state, move |state| async move {
        let (mut collected, write) = state?;
        match tokio::time::timeout(heartbeat, &mut collected).await {
            Err(_) => Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), Some((collected, write)))),
            Ok(result) => {
                let body = axum::body::to_bytes(write(result).into_body(), usize::MAX).await;
                Some((Ok(body.unwrap_or_default()), None))
            }
        }
    });
    with_type(StatusCode::OK, JSON, Body::from_stream(body))
}

/// A JSON answer.
#[must_use]
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(status, JSON, Body::from(bytes)),
        Err(error) => {
            tracing::error!(%error, "an answer is no JSON");
            with_type(
                StatusCode::INTERNAL_SERVER_ERROR,
                JSON,
                Body::from("{\"error\":\"the answer is no JSON\"}"),
            )
        }
    }
}

/// A text answer.
#[must_use]
pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    with_type(status, "text/plain; charset=utf-8", Body::from(text.into()))
}

/// An answer with a body of this type.
#[must_use]
pub fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A failure in the shape of the protocol that `path` belongs to.
#[must_use]
pub fn failure(path: &str, failure: &Failure) -> Response {
    let status = failure.status;
    if path == "/v1/messages" || path.starts_with("/v1/messages/") {
        return super::anthropic::failure(failure);
    }
    if path.starts_with("/v1/") {
        let kind = match status.as_u16() {
            400 | 405 | 413 => "invalid_request_error",
            401 => "authentication_error",
            404 => "not_found_error",
            _ => "api_error",
        };
        let error =
            serde_json::json!({"message": failure.message, "type": kind, "param": null, "code": null});
        return json(status, &serde_json::json!({"error": error}));
    }
    native_failure(failure)
}

/// A failure in Ollama's shape.
#[must_use]
pub fn native_failure(failure: &Failure) -> Response {
    json(failure.status, &serde_json::json!({"error": failure.message}))
}

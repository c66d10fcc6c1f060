//! Answers on the wire: JSON, errors in the shape of each protocol, and streams that are flushed piece by
//! piece.
//!
//! A stream never goes silent: when it has sent nothing for a while it sends its protocol's heartbeat.
//! Headers go out as soon as the request is known to be good, so that a bad one still gets its real status;
//! but after `headers_after` they go out in any case, because clients give up on a server that says nothing.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio::time::Instant;

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
    /// What keeps the connection alive: a comment between server-sent events.
    fn heartbeat(&mut self) -> Bytes {
        Bytes::from_static(b": ping\n\n")
    }
    /// Content type of the stream.
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }
    /// An answer to a request that failed before anything was sent.
    fn failure(&self, failure: &Failure) -> Response;
}

/// Streams the pieces of a job.
pub async fn stream_pieces(server: &Arc<Server>, mut pieces: PieceStream, wire: impl Wire) -> Response {
    if let Ok(Err(failure)) = tokio::time::timeout(server.http.headers_after, pieces.opening()).await {
        return wire.failure(&failure);
    }
    let content_type = wire.content_type();
    let state =
        Streaming { pieces, wire, heartbeat: server.http.heartbeat, ended: false, last_sent: Instant::now() };
    let body = Body::from_stream(stream::unfold(state, Streaming::next));
    with_type(StatusCode::OK, content_type, body)
}

struct Streaming<W> {
    pieces: PieceStream,
    wire: W,
    heartbeat: Duration,
    ended: bool,
    /// When bytes went out last: pieces that a protocol has no bytes for must not put off the heartbeat.
    last_sent: Instant,
}

impl<W: Wire> Streaming<W> {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        let due = self.last_sent + self.heartbeat;
        let bytes = loop {
            let bytes = match tokio::time::timeout_at(due, self.pieces.next()).await {
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
            // A timer never fires while pieces without bytes are there all the time.
            if Instant::now() >= due {
                break self.wire.heartbeat();
            }
        };
        self.last_sent = Instant::now();
        Some((Ok(bytes), self))
    }
}

/// The whole answer of a job as one body that `write` makes; see [`patient`].
pub async fn whole(
    server: &Arc<Server>,
    pieces: PieceStream,
    write: impl FnOnce(Result<Collected, Failure>) -> Response + Send + 'static,
) -> Response {
    patient(server, async move { write(pieces.collect().await) }).await
}

/// An answer in one JSON body that may take long: a model has to be loaded for it, or much computed. After
/// `headers_after` its headers go out and white space keeps the connection alive, which JSON allows before
/// its first character; a failure after that is an error body under status 200. Dropping the response cancels
/// the work.
pub async fn patient(
    server: &Arc<Server>,
    work: impl Future<Output = Response> + Send + 'static,
) -> Response {
    let mut work = Box::pin(work);
    if let Ok(response) = tokio::time::timeout(server.http.headers_after, &mut work).await {
        return response;
    }
    let heartbeat = server.http.heartbeat;
    let body = stream::unfold(Some(work), move |work| async move {
        let mut work = work?;
        match tokio::time::timeout(heartbeat, &mut work).await {
            Err(_) => Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), Some(work))),
            Ok(response) => {
                let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
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
            tracing::error!(%error, "a response could not be serialised");
            with_type(
                StatusCode::INTERNAL_SERVER_ERROR,
                JSON,
                Body::from("{\"error\":\"the response could not be serialised\"}"),
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

/// A failure in Ollama's shape.
#[must_use]
pub fn native_failure(failure: &Failure) -> Response {
    json(failure.status, &serde_json::json!({"error": failure.message}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use tokio::sync::mpsc;

    const BEAT: Duration = Duration::from_secs(15);

    /// Text is its own bytes; everything else has none, as in protocols that leave reasoning or progress out.
    struct TextOnly;

    impl Wire for TextOnly {
        fn piece(&mut self, piece: Piece) -> Bytes {
            match piece {
                Piece::Content { text, .. } => Bytes::from(text),
                Piece::Failed(failure) => Bytes::from(failure.message),
                _ => Bytes::new(),
            }
        }

        fn heartbeat(&mut self) -> Bytes {
            Bytes::from_static(b"beat")
        }

        fn content_type(&self) -> &'static str {
            NDJSON
        }

        fn failure(&self, failure: &Failure) -> Response {
            native_failure(failure)
        }
    }

    fn streaming(pieces: mpsc::UnboundedReceiver<Piece>, last_sent: Instant) -> Streaming<TextOnly> {
        let pieces = PieceStream::new(pieces);
        Streaming { pieces, wire: TextOnly, heartbeat: BEAT, ended: false, last_sent }
    }

    fn thinking() -> Piece {
        Piece::Thinking { text: "hm".to_owned(), logprobs: Vec::new() }
    }

    fn content() -> Piece {
        Piece::Content { text: "text".to_owned(), logprobs: Vec::new() }
    }

    /// What a stream sends when these pieces come after so many seconds each, and how many seconds after the
    /// headers.
    async fn sent(pieces: Vec<(u64, Piece)>) -> Vec<(u64, String)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for (after, piece) in pieces {
                tokio::time::sleep(Duration::from_secs(after)).await;
                let _ = sender.send(piece);
            }
        });
        let start = Instant::now();
        let state = streaming(receiver, start);
        let mut body = Box::pin(stream::unfold(state, Streaming::next));
        let mut out = Vec::new();
        while let Some(Ok(bytes)) = body.next().await {
            out.push((start.elapsed().as_secs(), String::from_utf8_lossy(&bytes).into_owned()));
        }
        out
    }

    fn longest_gap(sent: &[(u64, String)]) -> u64 {
        let times: Vec<u64> = std::iter::once(0).chain(sent.iter().map(|(at, _)| *at)).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn http_no_gap_is_longer_than_a_heartbeat_whatever_pieces_say_nothing() {
        let started = Piece::Started { prompt_tokens: 1 };
        // Just before the beat, then a long prompt.
        let late =
            sent(vec![(14, started.clone()), (40, content()), (1, Piece::Failed(Failure::busy()))]).await;
        assert_eq!(late.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [15, 30, 45, 54, 55]);
        assert_eq!((late[0].1.as_str(), late[3].1.as_str()), ("beat", "text"));
        // A minute of reasoning that this protocol has no place for.
        let mut pieces: Vec<_> = (0..60).map(|_| (1, thinking())).collect();
        pieces.push((1, content()));
        let silent = sent(pieces).await;
        assert_eq!(longest_gap(&silent), 15);
        assert_eq!(silent.iter().filter(|(_, text)| text == "beat").count(), 4);
        // Text alone needs no beat.
        let busy = sent((0..30).map(|_| (14, content())).collect()).await;
        assert!(busy.iter().all(|(_, text)| text != "beat"));
    }

    #[tokio::test(start_paused = true)]
    async fn http_pieces_that_are_always_there_do_not_starve_the_heartbeat() {
        let (sender, receiver) = mpsc::unbounded_channel();
        for _ in 0..1000 {
            let _ = sender.send(thinking());
        }
        let start = Instant::now();
        tokio::time::sleep(BEAT + Duration::from_secs(1)).await;
        let state = streaming(receiver, start);
        let (bytes, state) = state.next().await.unwrap();
        assert_eq!(bytes.unwrap(), "beat");
        assert_eq!(state.last_sent, Instant::now());
    }
}

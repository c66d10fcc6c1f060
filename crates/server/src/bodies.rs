//! Bodies of requests: how much memory all of them together may take, and how slow one may be.
//!
//! A body counts from its first chunk until its request is answered to the end, also while it waits for a
//! model: what was read of it is there as long. What is on its way to the disk ([`TO_DISK`]) is not counted:
//! its chunks do not stay.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::StatusCode;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use super::state::Server;
use super::{Failure, refusal};

/// Paths whose bodies go to the disk.
const TO_DISK: &str = "/api/blobs/";

/// How fast a body comes. Only the time that it is waited for counts, not what is done with it.
#[derive(Clone, Copy, Default)]
struct Pace {
    bytes: usize,
    waited: Duration,
}

/// A body that is being read; handlers find it beside their request.
pub struct Reading {
    server: Arc<Server>,
    /// Bytes of it in memory.
    bytes: AtomicUsize,
    counts: bool,
    refused: OnceLock<Failure>,
}

impl Reading {
    /// Counts bytes in memory; false when there is no room for them.
    pub fn take(&self, bytes: usize) -> bool {
        if !self.counts {
            return true;
        }
        let all = self.server.body_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        all <= self.server.http.most_body_bytes
    }

    fn refuse(&self, failure: Failure) -> axum::Error {
        let error = axum::Error::new(failure.to_string());
        // Only the first reason counts.
        let _ = self.refused.set(failure);
        error
    }

    async fn next(&self, body: &mut BodyDataStream, pace: &mut Pace) -> Option<Result<Bytes, axum::Error>> {
        let http = &self.server.http;
        let start = Instant::now();
        let next = tokio::time::timeout(http.body_patience.saturating_sub(pace.waited), body.next()).await;
        pace.waited += start.elapsed();
        let Ok(next) = next else {
            let message = "the request's body comes too slowly";
            return Some(Err(self.refuse(Failure::new(StatusCode::REQUEST_TIMEOUT, message))));
        };
        let Some(Ok(chunk)) = next else { return next };
        pace.bytes += chunk.len();
        if pace.bytes >= http.least_body_bytes {
            *pace = Pace::default();
        }
        if self.take(chunk.len()) { Some(Ok(chunk)) } else { Some(Err(self.refuse(Failure::busy()))) }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.server.body_bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// The middleware that counts.
pub async fn bound(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (mut head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let counts = !path.starts_with(TO_DISK);
    let reading = Arc::new(Reading { server, bytes: AtomicUsize::new(0), counts, refused: OnceLock::new() });
    head.extensions.insert(Arc::clone(&reading));
    let state = (body.into_data_stream(), Pace::default(), Arc::clone(&reading));
    let watched = stream::unfold(state, |(mut body, mut pace, reading)| async move {
        let chunk = reading.next(&mut body, &mut pace).await?;
        Some((chunk, (body, pace, reading)))
    });
    let answer = next.run(Request::from_parts(head, Body::from_stream(watched))).await;
    match reading.refused.get() {
        Some(failure) => refusal::of_path(&path, failure),
        None => answer.map(|answer| Body::new(Answering { answer, _reading: reading })),
    }
}

/// An answer, with what its request counts for.
struct Answering {
    answer: Body,
    _reading: Arc<Reading>,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().answer).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

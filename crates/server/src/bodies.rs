//! Bodies of requests in memory: how much all of them together may take, and how long one may stand still.
//!
//! A body counts from its first chunk until its handler answers. What is on its way to the disk ([`TO_DISK`])
//! is not counted: its chunks do not stay.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::StatusCode;

use super::state::Server;
use super::{Failure, refusal};

/// Paths whose bodies go to the disk.
const TO_DISK: &str = "/api/blobs/";

/// A body that is being read.
struct Reading {
    server: Arc<Server>,
    /// Bytes of it in memory.
    bytes: AtomicUsize,
    counts: bool,
    refused: OnceLock<Failure>,
}

impl Reading {
    /// Counts a chunk; false when there is no room for it.
    fn take(&self, bytes: usize) -> bool {
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

    async fn next(&self, body: &mut BodyDataStream) -> Option<Result<Bytes, axum::Error>> {
        match tokio::time::timeout(self.server.http.body_standstill, body.next()).await {
            Err(_) => {
                let message = "the request's body stood still for too long";
                Some(Err(self.refuse(Failure::new(StatusCode::REQUEST_TIMEOUT, message))))
            }
            Ok(Some(Ok(chunk))) if !self.take(chunk.len()) => Some(Err(self.refuse(Failure::busy()))),
            Ok(chunk) => chunk,
        }
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
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let counts = !path.starts_with(TO_DISK);
    let reading = Arc::new(Reading { server, bytes: AtomicUsize::new(0), counts, refused: OnceLock::new() });
    let state = (body.into_data_stream(), Arc::clone(&reading));
    let watched = stream::unfold(state, |(mut body, reading)| async {
        let chunk = reading.next(&mut body).await?;
        Some((chunk, (body, reading)))
    });
    let answer = next.run(Request::from_parts(head, Body::from_stream(watched))).await;
    match reading.refused.get() {
        Some(failure) => refusal::of_path(&path, failure),
        None => answer,
    }
}

//! `/api/blobs/:digest`: files on their way into the store, of any size.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::head;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;

use super::manage::with_store;
use crate::state::Server;
use crate::{Failure, coding, respond};
use hypura_store::{Digest, StoreError, Stored};

/// Chunks that may wait for the disk.
const QUEUE: usize = 16;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/blobs/{digest}", head(has).post(receive))
}

async fn has(State(server): State<Arc<Server>>, Path(digest): Path<String>) -> Response {
    let found = with_store(&server, move |store| {
        let digest = Digest::parse(&digest)?;
        store.blob_bytes(&digest)?.ok_or_else(|| StoreError::NoBlob(digest.to_string()))
    });
    match found.await {
        Ok(_) => status(StatusCode::OK),
        Err(failure) => respond::native_failure(&failure),
    }
}

async fn receive(
    State(server): State<Arc<Server>>,
    Path(digest): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(failure) = coding::none(&headers) {
        return respond::native_failure(&failure);
    }
    match receive_all(&server, digest, body).await {
        Ok(Stored::Created) => status(StatusCode::CREATED),
        Ok(Stored::Present) => status(StatusCode::OK),
        Err(failure) => respond::native_failure(&failure),
    }
}

async fn receive_all(server: &Arc<Server>, digest: String, body: Body) -> Result<Stored, Failure> {
    let Ok(_upload) = server.uploads.try_acquire() else { return Err(Failure::busy()) };
    let (sender, mut chunks) = mpsc::channel::<Option<Bytes>>(QUEUE);
    let writing = with_store(server, move |store| {
        let digest = Digest::parse(&digest)?;
        let Some(mut writer) = store.receive_blob(&digest)? else { return Ok(Stored::Present) };
        // None is the good end; a sender that just goes away had a client that disconnected.
        while let Some(chunk) = chunks.blocking_recv() {
            match chunk {
                Some(chunk) => writer.write(&chunk)?,
                None => return writer.finish(),
            }
        }
        Err(StoreError::BadRequest("the body is not complete".to_owned()))
    });
    let feeding = async move {
        let mut body = body.into_data_stream();
        while let Some(chunk) = body.next().await {
            let Ok(chunk) = chunk else { return };
            if sender.send(Some(chunk)).await.is_err() {
                // The writer ended early and says why; the rest of the body is read and dropped, so that the
                // client hears the answer.
                while body.next().await.is_some_and(|chunk| chunk.is_ok()) {}
                return;
            }
        }
        drop(sender.send(None).await);
    };
    let (stored, ()) = tokio::join!(writing, feeding);
    stored
}

fn status(status: StatusCode) -> Response {
    respond::with_type(status, "text/plain", Body::empty())
}

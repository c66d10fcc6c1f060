//! Changes of the store that are done at once: delete and copy; and push, which is refused.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, post};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use crate::jobs::{self, find};
use crate::models::failure_of_store;
use crate::state::Server;
use crate::{Failure, body, respond};
use hypura_store::{Store, StoreError};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/api/delete", delete(delete_model))
        .route("/api/copy", post(copy))
        .route("/api/push", post(push))
}

/// `model`, or its older word.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NameRequest {
    model: String,
    name: String,
}

impl NameRequest {
    fn name(&self) -> &str {
        if self.model.is_empty() { &self.name } else { &self.model }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CopyRequest {
    source: String,
    destination: String,
}

/// Does something with the store where blocking is allowed.
pub(super) async fn with_store<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let no_store =
        || Failure::new(StatusCode::NOT_IMPLEMENTED, "this server has no model store that can be changed");
    let store = server.catalog.store().ok_or_else(no_store)?;
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.map_err(|_| Failure::internal("the model store failed"))?.map_err(|error| failure_of_store(&error))
}

fn empty() -> Response {
    respond::with_type(StatusCode::OK, "text/plain", Body::empty())
}

async fn delete_model(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    delete_answer(&server, &bytes).await.unwrap_or_else(|failure| respond::native_failure(&failure))
}

async fn delete_answer(server: &Arc<Server>, bytes: &Bytes) -> Result<Response, Failure> {
    let request: NameRequest = body::request(bytes)?;
    let name = request.name().to_owned();
    if name.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    let loaded = find(server, &name).await.ok();
    with_store(server, move |store| store.delete(&name)).await?;
    if let Some(entry) = loaded {
        jobs::unload(server, &entry);
    }
    Ok(empty())
}

async fn copy(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    copy_answer(&server, &bytes).await.unwrap_or_else(|failure| respond::native_failure(&failure))
}

async fn copy_answer(server: &Arc<Server>, bytes: &Bytes) -> Result<Response, Failure> {
    let request: CopyRequest = body::request(bytes)?;
    let source = request.source.clone();
    let copied = with_store(server, move |store| store.copy(&request.source, &request.destination)).await;
    copied.map_err(|failure| match failure.status {
        StatusCode::NOT_FOUND => Failure::not_found(format!("model \"{source}\" not found")),
        _ => failure,
    })?;
    Ok(empty())
}

async fn push(State(_): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    if let Err(failure) = body::request::<NameRequest>(&bytes) {
        return respond::native_failure(&failure);
    }
    let message = "pushing models is not supported: use Ollama for that";
    respond::native_failure(&Failure::new(StatusCode::NOT_IMPLEMENTED, message))
}

//! Changes of the store that are done at once: delete, copy, and what pull and push can answer without a
//! network.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, post};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::wire;
use crate::jobs::{self, find};
use crate::models::{LookupError, failure_of_store};
use crate::respond::NDJSON;
use crate::state::Server;
use crate::{Failure, body, respond};
use hypura_store::{ModelName, Store, StoreError};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/api/delete", delete(delete_model))
        .route("/api/copy", post(copy))
        .route("/api/pull", post(pull))
        .route("/api/push", post(push))
}

/// `model`, or its older word.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NameRequest {
    model: String,
    name: String,
    stream: Option<bool>,
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

async fn pull(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    pull_answer(&server, &bytes).await.unwrap_or_else(|failure| respond::native_failure(&failure))
}

/// What is installed is "pulled" at once; nothing is ever downloaded.
async fn pull_answer(server: &Arc<Server>, bytes: &Bytes) -> Result<Response, Failure> {
    let request: NameRequest = body::request(bytes)?;
    let name = request.name();
    if ModelName::parse(name).is_err() {
        return Err(Failure::bad_request("invalid model name"));
    }
    let entry = match find(server, name).await {
        Ok(entry) => entry,
        Err(LookupError::NotInstalled) => {
            let failure = Failure::internal(format!(
                "pull model manifest: model '{name}' not found on this machine, and this server does not download: \
                 put a GGUF file into a folder of models, or pull it with Ollama, whose models are found"
            ));
            if request.stream == Some(false) {
                return Err(failure);
            }
            // Ollama's stream has begun when it finds out, and so clients expect to learn it.
            let lines = [json!({"status": "pulling manifest"}), json!({"error": failure.message})];
            return Ok(statuses_answer(&lines, true));
        }
        Err(error) => return Err(super::request::lookup_failure(error, name)),
    };
    let statuses = [
        json!({"status": "pulling manifest"}),
        json!({
            "status": format!("pulling {}", entry.digest.get(..12).unwrap_or_default()),
            "digest": format!("sha256:{}", entry.digest),
            "total": entry.size,
            "completed": entry.size,
        }),
        json!({"status": "verifying sha256 digest"}),
        json!({"status": "writing manifest"}),
        json!({"status": "success"}),
    ];
    Ok(statuses_answer(&statuses, request.stream.unwrap_or(true)))
}

/// All statuses as lines, or the last one alone.
fn statuses_answer(statuses: &[Value], stream: bool) -> Response {
    if stream {
        let lines: Vec<u8> = statuses.iter().flat_map(|status| wire::line(status).to_vec()).collect();
        return respond::with_type(StatusCode::OK, NDJSON, Body::from(lines));
    }
    respond::json(StatusCode::OK, &statuses.last())
}

async fn push(State(_): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    if let Err(failure) = body::request::<NameRequest>(&bytes) {
        return respond::native_failure(&failure);
    }
    let message = "pushing models is not supported: use Ollama for that";
    respond::native_failure(&Failure::new(StatusCode::NOT_IMPLEMENTED, message))
}

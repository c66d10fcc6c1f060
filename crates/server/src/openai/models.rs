//! `GET /v1/models` and `GET /v1/models/{model}`

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use hypura_store::ModelEntry;
use serde_json::{Value, json};

use crate::jobs::find;
use crate::models::LookupError;
use crate::state::Server;
use crate::{Failure, refusal, respond, time};

pub(super) fn routes() -> Router<Arc<Server>> {
    // Names hold slashes and colons; the path may have them encoded or not.
    Router::new().route("/v1/models", get(list)).route("/v1/models/{*model}", get(one))
}

async fn list(State(server): State<Arc<Server>>) -> Response {
    let catalog = Arc::clone(&server.catalog);
    match tokio::task::spawn_blocking(move || catalog.list()).await {
        Ok(models) => {
            let data: Vec<Value> =
                models.iter().map(|entry| object(entry, &entry.name.to_string())).collect();
            respond::json(StatusCode::OK, &json!({"object": "list", "data": data}))
        }
        Err(_) => refusal::openai(&Failure::internal("the model store failed")),
    }
}

async fn one(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Response {
    match find(&server, &name).await {
        Ok(entry) => respond::json(StatusCode::OK, &object(&entry, &name)),
        Err(LookupError::Refused(failure)) => refusal::openai(&failure),
        Err(_) => refusal::openai(&Failure::no_model(&name)),
    }
}

/// A model; `meta` as llama-server has it.
fn object(entry: &ModelEntry, name: &str) -> Value {
    let details = entry.details();
    json!({
        "id": name,
        "object": "model",
        "created": time::unix_seconds(entry.modified),
        "owned_by": "library",
        "meta": {
            "n_ctx_train": details.context_length,
            "n_embd": details.embedding_length,
            "size": entry.size,
            "parameter_size": details.parameter_size,
            "quantization": details.quantization_level,
        },
    })
}

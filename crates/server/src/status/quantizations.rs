//! `/api/hypura/quantizations`: what the repository of an installed model has of it, for who asks what
//! another one would be like (`quantization` of `/api/hypura/plan`). Asks Hugging Face for its list of files.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::StatusCode;
use hypura_core::gguf::GgmlType;
use hypura_store::Store;
use hypura_store::fetch::{RemoteName, Variant};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::jobs::{failure_of, find};
use crate::state::Server;
use crate::{Failure, respond};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/hypura/quantizations", get(quantizations))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    model: String,
}

async fn quantizations(State(server): State<Arc<Server>>, Query(asked): Query<Asked>) -> Response {
    match listed(&server, &asked.model).await {
        Ok(bytes) => respond::with_type(StatusCode::OK, respond::JSON, Body::from(bytes)),
        Err(failure) => respond::native_failure(&failure),
    }
}

async fn listed(server: &Arc<Server>, model: &str) -> Result<Bytes, Failure> {
    if model.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    let entry = find(server, model).await.map_err(|error| failure_of(error, model))?;
    let name = entry.name.to_string();
    let key = format!("quantizations {name}");
    if let Some(bytes) = server.plans.find(&key) {
        return Ok(bytes);
    }
    let variants = match (server.catalog.store(), RemoteName::parse(&name)) {
        (Some(store), Ok(remote @ RemoteName::HuggingFace { .. })) => {
            let asked = tokio::task::spawn_blocking(move || ask(&store, &remote)).await;
            asked.map_err(|_| Failure::internal("nobody could be asked"))?
        }
        _ => None,
    };
    let rows = variants.map(|variants| variants.iter().filter_map(row).collect::<Vec<_>>());
    let bytes = Bytes::from(json!({"model": name, "quantizations": rows}).to_string());
    // Who cannot be asked now may be asked again.
    if rows.is_some() {
        server.plans.keep(key, bytes.clone());
    }
    Ok(bytes)
}

/// The quantisations of a repository; `None` where nobody can be asked.
fn ask(store: &Store, name: &RemoteName) -> Option<Vec<Variant>> {
    let found = store.pulls().remote().find(name, false);
    let told = |error: &_| tracing::debug!(%error, "the repository of a model could not be asked");
    found.inspect_err(told).ok().map(|model| model.variants)
}

/// Those whose names say what they are: others cannot be planned.
fn row(variant: &Variant) -> Option<Value> {
    GgmlType::of_quantization(&variant.tag)?;
    Some(json!({"quantization": variant.tag, "bytes": variant.bytes}))
}

//! Which models there are (`/api/tags`), which are loaded (`/api/ps`), what is known of one (`/api/show`).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use hypura_store::{ModelEntry, Partial};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::request::lookup_failure;
use crate::jobs::find;
use crate::models::{LookupError, RunningModel};
use crate::state::Server;
use crate::status::workers;
use crate::{Failure, body, respond, time};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/tags", get(tags)).route("/api/ps", get(ps)).route("/api/show", post(show))
}

async fn tags(State(server): State<Arc<Server>>) -> Response {
    let catalog = Arc::clone(&server.catalog);
    let list = move || {
        let partials = catalog.store().map(|store| store.pulls().partials());
        (catalog.list(), partials.unwrap_or_default())
    };
    let Ok((models, partials)) = tokio::task::spawn_blocking(list).await else {
        return respond::native_failure(&Failure::internal("the model store failed"));
    };
    let models: Vec<Value> = models.iter().map(|entry| tag(entry)).collect();
    let mut out = json!({"models": models});
    if !partials.is_empty() {
        let partials: Vec<Value> = partials.iter().map(partial).collect();
        out["hypura"] = json!({"partial": partials});
    }
    respond::json(StatusCode::OK, &out)
}

/// A file that is not whole: it is no model yet, so it stands beside them.
fn partial(file: &Partial) -> Value {
    json!({
        "model": file.model,
        "file": file.file,
        "size": file.bytes,
        "completed": file.have_bytes,
        "busy": file.busy,
        "from_url": file.is_of_url,
        "modified_at": file.modified.map(time::local),
    })
}

fn tag(entry: &ModelEntry) -> Value {
    json!({
        "name": entry.name.to_string(),
        "model": entry.name.to_string(),
        "modified_at": time::local(entry.modified),
        "size": entry.size,
        "digest": entry.digest,
        "details": entry.details(),
        "capabilities": entry.capabilities(),
    })
}

async fn ps(State(server): State<Arc<Server>>) -> Response {
    let models: Vec<Value> = server.running().await.iter().map(running).collect();
    respond::json(StatusCode::OK, &json!({"models": models}))
}

/// `size` is what the model holds in memory now, that of other machines included: of a streaming model that
/// is less than its file.
fn running(model: &RunningModel) -> Value {
    let RunningModel { entry, status, info, .. } = model;
    let mut told = json!({
        "name": entry.name.to_string(),
        "model": entry.name.to_string(),
        "size": status.memory_bytes.saturating_add(status.device_bytes).saturating_add(status.worker_bytes()),
        "digest": entry.digest,
        "details": entry.details(),
        "expires_at": time::local(model.expires_at),
        "size_vram": status.device_bytes,
        "context_length": status.context_length,
        "hypura": {
            "mode": info.mode.name(),
            "file_bytes": info.file_bytes,
            "tiers": {
                "GPU": status.device_bytes,
                "RAM": status.memory_bytes,
                "NVMe": status.weights_on_disk_bytes,
            },
            "active": status.active,
            "queued": status.queued,
            "load_seconds": model.load_time.as_secs_f64(),
        },
    });
    if !status.workers.is_empty() {
        told["hypura"]["workers"] = workers(status).into();
    }
    told
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ShowRequest {
    model: String,
    name: String,
    verbose: bool,
    system: String,
}

async fn show(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    body::Whole(bytes): body::Whole,
) -> Response {
    answer(&server, &headers, &bytes).await.unwrap_or_else(|failure| respond::native_failure(&failure))
}

async fn answer(server: &Arc<Server>, headers: &HeaderMap, bytes: &Bytes) -> Result<Response, Failure> {
    let request: ShowRequest = body::request(bytes)?;
    let name = if request.model.is_empty() { request.name.clone() } else { request.model.clone() };
    if name.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    let entry = match find(server, &name).await {
        Ok(entry) => entry,
        Err(LookupError::NotInstalled) => return Err(Failure::no_model(&with_tag(&name))),
        Err(error) => return Err(lookup_failure(error, &name)),
    };
    let catalog = Arc::clone(&server.catalog);
    let (shown, verbose) = (Arc::clone(&entry), request.verbose);
    let data = tokio::task::spawn_blocking(move || catalog.show(&shown, verbose)).await;
    let mut data = data.map_err(|_| Failure::internal("the model store failed"))??;
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    if agent.starts_with("GitHubCopilotChat/") {
        // It shows this as the model's name.
        data.model_info.insert("general.basename".to_owned(), name.into());
    }
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    if !data.license.is_empty() {
        put("license", data.license.into());
    }
    put("modelfile", data.modelfile.into());
    if !data.parameters.is_empty() {
        put("parameters", data.parameters.into());
    }
    put("template", data.template.into());
    let system =
        Some(request.system).filter(|text| !text.is_empty()).or_else(|| entry.settings.system.clone());
    if let Some(system) = system {
        put("system", system.into());
    }
    for (key, value) in [("renderer", data.renderer), ("parser", data.parser), ("requires", data.requires)] {
        if let Some(value) = value {
            put(key, value.into());
        }
    }
    put("details", json!(entry.details()));
    if !entry.settings.messages.is_empty() {
        put("messages", json!(entry.settings.messages));
    }
    put("model_info", Value::Object(data.model_info));
    if let Some(info) = data.projector_info {
        put("projector_info", Value::Object(info));
    }
    put("tensors", json!(data.tensors.unwrap_or_default()));
    put("capabilities", json!(entry.capabilities()));
    put("modified_at", time::local(entry.modified).into());
    Ok(respond::json(StatusCode::OK, &out))
}

/// The name with its tag, as this endpoint's error shows it.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

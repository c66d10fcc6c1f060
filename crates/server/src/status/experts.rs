//! Layers × experts of a model that streams them: a digit for each expert.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use hypura_engine::stream::{ExpertMap, ExpertRow, ExpertState};
use serde_json::{Value, json};

use crate::jobs::{failure_of, find};
use crate::state::Server;
use crate::{Failure, respond};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/hypura/experts", get(experts))
}

async fn experts(
    State(server): State<Arc<Server>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    match map_of(&server, query.get("model").map_or("", String::as_str)).await {
        Ok(document) => respond::json(StatusCode::OK, &document),
        Err(failure) => respond::native_failure(&failure),
    }
}

async fn map_of(server: &Arc<Server>, name: &str) -> Result<Value, Failure> {
    if name.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    let entry = find(server, name).await.map_err(|error| failure_of(error, name))?;
    let asked = Arc::clone(server);
    let shown = entry.name.to_string();
    let map = tokio::task::spawn_blocking(move || asked.models.experts(&entry));
    let map = map.await.map_err(|_| Failure::internal("the model could not be asked"))?;
    Ok(document(&shown, map.as_ref()))
}

fn document(name: &str, map: Option<&ExpertMap>) -> Value {
    json!({
        "model": name,
        "clock": map.map(|map| map.clock),
        "layers": map.map(|map| map.layers.iter().map(row).collect::<Vec<_>>()),
    })
}

fn row(row: &ExpertRow) -> Value {
    let digit = |state: &ExpertState| match state {
        ExpertState::OnDisk => '0',
        ExpertState::InMemory => '1',
        ExpertState::UsedLately => '2',
        ExpertState::UsedNow => '3',
    };
    json!({"layer": row.layer, "experts": row.experts.iter().map(digit).collect::<String>()})
}

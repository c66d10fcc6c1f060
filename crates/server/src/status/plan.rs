//! `/api/hypura/plan`: what `hypura plan --json` says of an installed model, as this server would load it, or
//! as it would be on another machine.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::StatusCode;
use hypura_core::gguf::GgmlType;
use serde::Deserialize;

use crate::jobs::{failure_of, find};
use crate::models::PlanQuestion;
use crate::state::Server;
use crate::{Failure, respond};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/hypura/plan", get(plan))
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    model: String,
    memory_bytes: Option<u64>,
    context_tokens: Option<u32>,
    prompt_tokens: Option<u32>,
    disk_bytes_per_s: Option<f64>,
    compute_factor: Option<f64>,
    hit_rate: Option<f64>,
    quantization: Option<String>,
}

async fn plan(
    State(server): State<Arc<Server>>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let planned = match asked {
        Ok(Query(asked)) => planned(&server, &asked).await,
        Err(error) => Err(Failure::bad_request(error.body_text())),
    };
    match planned {
        Ok(bytes) => respond::with_type(StatusCode::OK, respond::JSON, Body::from(bytes)),
        Err(failure) => respond::native_failure(&failure),
    }
}

async fn planned(server: &Arc<Server>, asked: &Asked) -> Result<Bytes, Failure> {
    if asked.model.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    let weights = asked.quantization.as_deref().map(|name| {
        let unknown = || Failure::bad_request(format!("`{name}` is no quantization, like Q4_K_M"));
        GgmlType::of_quantization(name).map(GgmlType::id).ok_or_else(unknown)
    });
    let question = PlanQuestion {
        memory_bytes: asked.memory_bytes,
        context_tokens: asked.context_tokens,
        prompt_tokens: asked.prompt_tokens,
        disk_bytes_per_s: asked.disk_bytes_per_s,
        compute_factor: asked.compute_factor,
        hit_rate: asked.hit_rate,
        weights: weights.transpose()?,
    };
    question.check().map_err(|error| Failure::bad_request(error.to_string()))?;
    let entry = find(server, &asked.model).await.map_err(|error| failure_of(error, &asked.model))?;
    let key = format!("{} {} {question:?}", entry.name, entry.weights);
    if let Some(bytes) = server.plans.find(&key) {
        return Ok(bytes);
    }
    let _turn =
        server.plans.turn.acquire().await.map_err(|_| Failure::internal("the server is shutting down"))?;
    // Whoever was before may have asked the same.
    if let Some(bytes) = server.plans.find(&key) {
        return Ok(bytes);
    }
    let planner = Arc::clone(server);
    let advised = tokio::task::spawn_blocking(move || planner.models.advise(&entry, &question)).await;
    let bytes = Bytes::from(advised.map_err(|_| Failure::internal("the planner failed"))??);
    server.plans.keep(key, bytes.clone());
    Ok(bytes)
}

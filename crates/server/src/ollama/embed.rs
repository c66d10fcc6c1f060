//! `POST /api/embed` and the older `POST /api/embeddings`

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::Common;
use crate::job::{EmbedJob, JobBase};
use crate::jobs::{self, find};
use crate::models::LookupError;
use crate::state::Server;
use crate::{Failure, body, respond, time};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/embed", post(embed)).route("/api/embeddings", post(embeddings))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    #[serde(flatten)]
    common: Common,
    input: Value,
    prompt: String,
    dimensions: Option<usize>,
}

async fn embed(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    let work = Arc::clone(&server);
    respond::patient(&server, async move {
        answer(&work, &bytes, received).await.unwrap_or_else(|failure| respond::native_failure(&failure))
    })
    .await
}

async fn answer(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<Response, Failure> {
    let request: Request = body::request(bytes)?;
    let base = request.common.base(received)?;
    if base.model.is_empty() {
        return Err(Failure::no_model(""));
    }
    let inputs = inputs(&request.input)?;
    installed(server, &base).await?;
    let truncate = request.common.truncate.unwrap_or(true);
    let model = base.model.clone();
    let job = EmbedJob { base, inputs, truncate, dimensions: request.dimensions, normalise: true };
    let embedded = jobs::embed(server, job).await?;
    Ok(respond::json(
        StatusCode::OK,
        &json!({
            "model": model,
            "embeddings": embedded.vectors,
            "total_duration": time::nanos(embedded.total),
            "load_duration": time::nanos(embedded.load),
            "prompt_eval_count": embedded.prompt_tokens,
        }),
    ))
}

async fn embeddings(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    let work = Arc::clone(&server);
    respond::patient(&server, async move {
        old_answer(&work, &bytes, received).await.unwrap_or_else(|failure| respond::native_failure(&failure))
    })
    .await
}

async fn old_answer(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<Response, Failure> {
    let request: Request = body::request(bytes)?;
    let base = request.common.base(received)?;
    if base.model.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    installed(server, &base).await?;
    let inputs = Some(request.prompt).filter(|prompt| !prompt.is_empty()).into_iter().collect();
    let job = EmbedJob { base, inputs, truncate: true, dimensions: None, normalise: false };
    let embedded = jobs::embed(server, job).await?;
    let vector = embedded.vectors.into_iter().next().unwrap_or_default();
    Ok(respond::json(StatusCode::OK, &json!({"embedding": vector})))
}

/// These endpoints have their own words for a model that is not there.
async fn installed(server: &Arc<Server>, base: &JobBase) -> Result<(), Failure> {
    match find(server, &base.model).await {
        Ok(_) => Ok(()),
        Err(LookupError::NotInstalled) => {
            Err(Failure::not_found(format!("model \"{}\" not found, try pulling it first", base.model)))
        }
        Err(LookupError::Invalid) => Err(Failure::bad_request("invalid model name")),
        Err(LookupError::Refused(failure)) => Err(failure),
    }
}

fn inputs(input: &Value) -> Result<Vec<String>, Failure> {
    let invalid = || Failure::bad_request("invalid input type");
    match input {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(invalid)).collect()
        }
        _ => Err(invalid()),
    }
}

//! llama-server's small endpoints on the same port: tokenize, detokenize, apply-template, props, slots.
//!
//! llama-server has one model, we have several: `model` in the body or the query says which; without it the
//! loaded one, or the only one that is installed.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::StatusCode;
use hypura_engine::Token;
use hypura_engine::serve::SequenceStatus;
use hypura_store::{Capability, ModelEntry};
use serde_json::{Map, Value, json};

use super::chat::{self, Request};
use crate::jobs::{self, find};
use crate::models::backend::LoadRequest;
use crate::models::{Lease, LookupError};
use crate::state::Server;
use crate::{Failure, body, refusal, respond};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/apply-template", post(apply_template))
        .route("/props", get(props))
        .route("/slots", get(slots))
}

type Answer = Result<Value, Failure>;

fn written(answer: Answer) -> Response {
    match answer {
        Ok(value) => respond::json(StatusCode::OK, &value),
        Err(failure) => refusal::openai(&failure),
    }
}

/// An answer that may have to wait for a model.
async fn patiently(server: &Arc<Server>, answer: impl Future<Output = Answer> + Send + 'static) -> Response {
    respond::patient(server, async move { written(answer.await) }).await
}

/// The model that a request without a name means.
async fn name_of(server: &Arc<Server>, asked: Option<&str>) -> Result<String, Failure> {
    if let Some(name) = asked.filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    if let [loaded] = server.models.loaded().as_slice() {
        return Ok(loaded.name.to_string());
    }
    let catalog = Arc::clone(&server.catalog);
    let all = tokio::task::spawn_blocking(move || catalog.list()).await.unwrap_or_default();
    match all.as_slice() {
        [only] => Ok(only.name.to_string()),
        _ => Err(Failure::bad_request("model is required: several are installed")),
    }
}

async fn entry_of(server: &Arc<Server>, asked: Option<&str>) -> Result<Arc<ModelEntry>, Failure> {
    let name = name_of(server, asked).await?;
    find(server, &name).await.map_err(|error| match error {
        LookupError::Invalid => Failure::bad_request("invalid model name"),
        LookupError::NotInstalled => Failure::no_model(&name),
        LookupError::Refused(failure) => failure,
    })
}

async fn lease(server: &Arc<Server>, object: &Map<String, Value>) -> Result<Lease, Failure> {
    let entry = entry_of(server, object.get("model").and_then(Value::as_str)).await?;
    server.models.acquire(&entry, LoadRequest::default(), None).await
}

/// Runs what may take a moment off the threads that serve others.
async fn blocking(work: impl FnOnce() -> Value + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::internal("the text could not be read"))
}

async fn tokenize(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let work = Arc::clone(&server);
    patiently(&server, async move { tokens_of(&work, &bytes).await }).await
}

async fn tokens_of(server: &Arc<Server>, bytes: &Bytes) -> Answer {
    let object = body::object(bytes)?;
    let text = match object.get("content") {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => return Err(Failure::bad_request("content must be a string")),
    };
    let flag = |name: &str, default: bool| object.get(name).and_then(Value::as_bool).unwrap_or(default);
    let (begin, control) = (flag("add_special", false), flag("parse_special", true));
    let pieces = flag("with_pieces", false);
    jobs::check_text(&text)?;
    let lease = lease(server, &object).await?;
    blocking(move || {
        let engine = lease.engine();
        let tokens = engine.tokenize(&text, begin, control);
        if !pieces {
            return json!({"tokens": tokens});
        }
        let with = |(token, piece): (&Token, String)| json!({"id": token, "piece": piece});
        let pieces = tokens.iter().zip(engine.pieces(&tokens)).map(with);
        json!({"tokens": pieces.collect::<Vec<_>>()})
    })
    .await
}

async fn detokenize(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let work = Arc::clone(&server);
    patiently(&server, async move { text_of(&work, &bytes).await }).await
}

async fn text_of(server: &Arc<Server>, bytes: &Bytes) -> Answer {
    let object = body::object(bytes)?;
    let wrong = || Failure::bad_request("tokens must be an array of integers");
    let tokens = match object.get("tokens") {
        None => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_i64().and_then(|token| Token::try_from(token).ok()).ok_or_else(wrong))
            .collect::<Result<Vec<_>, _>>()?,
        Some(_) => return Err(wrong()),
    };
    let lease = lease(server, &object).await?;
    blocking(move || json!({"content": lease.engine().detokenize(&tokens)})).await
}

async fn apply_template(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let work = Arc::clone(&server);
    patiently(&server, async move { prompt_of(&work, &bytes).await }).await
}

async fn prompt_of(server: &Arc<Server>, bytes: &Bytes) -> Answer {
    let mut object = body::object(bytes)?;
    let name = name_of(server, object.get("model").and_then(Value::as_str)).await?;
    object.insert("model".to_owned(), name.into());
    let request: Request = body::of_object(object)?;
    let job = chat::job(request, Instant::now())?;
    Ok(json!({"prompt": jobs::render_chat(server, job).await?}))
}

async fn props(State(server): State<Arc<Server>>, Query(query): Query<HashMap<String, String>>) -> Response {
    written(properties(&server, query.get("model").map(String::as_str)).await)
}

/// Never loads a model: what a loaded one knows is said where it is loaded.
async fn properties(server: &Arc<Server>, asked: Option<&str>) -> Answer {
    let entry = entry_of(server, asked).await?;
    let running = server.running().await;
    let running = running.into_iter().find(|running| running.entry.same_weights(&entry));
    let (catalog, shown) = (Arc::clone(&server.catalog), Arc::clone(&entry));
    let show = tokio::task::spawn_blocking(move || catalog.show(&shown, false)).await;
    let show = show.map_err(|_| Failure::internal("the model store failed"))??;
    let context = running.as_ref().map_or(0, |running| running.status.context_length);
    let slots = running.as_ref().map_or(0, |running| running.info.parallel);
    Ok(json!({
        "default_generation_settings": {"n_ctx": context},
        "total_slots": slots,
        "model_alias": entry.name.to_string(),
        "chat_template": show.template,
        "modalities": {"vision": entry.can(Capability::Vision), "audio": entry.can(Capability::Audio)},
        "is_sleeping": running.is_none(),
        "build_info": concat!("hypura ", env!("CARGO_PKG_VERSION")),
    }))
}

/// One entry for each request that a loaded model can work on: what it works on first, then the conversations
/// that it remembers most of.
async fn slots(State(server): State<Arc<Server>>) -> Response {
    let mut all = Vec::new();
    for running in server.running().await {
        let status = &running.status;
        let mut sequences = status.slots.clone();
        sequences
            .sort_by_key(|sequence| (sequence.request.is_none(), std::cmp::Reverse(sequence.cached_tokens)));
        sequences.resize(running.info.parallel.max(1), SequenceStatus::default());
        for sequence in sequences {
            all.push(json!({
                "id": all.len(),
                "model": running.entry.name.to_string(),
                "n_ctx": status.context_length,
                "is_processing": sequence.request.is_some(),
                "n_past": sequence.cached_tokens,
                "n_prompt_tokens": sequence.prompt_tokens,
                "n_decoded": sequence.generated_tokens,
                "queued": status.queued,
            }));
        }
    }
    respond::json(StatusCode::OK, &all)
}

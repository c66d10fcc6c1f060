//! `POST /api/create`: a new model of our store from blobs or another model, with a line for each step.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use serde_json::json;
use tokio::sync::mpsc;

use super::manage::with_store;
use super::wire;
use crate::quantizer::ProcessQuantizer;
use crate::respond::NDJSON;
use crate::state::Server;
use crate::{Failure, body, respond};
use hypura_store::{CreateRequest, Progress};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/create", post(create))
}

/// A step that says nothing about whether the request is good.
const FIRST_STEP: &str = "parsing GGUF";

/// What the work tells: steps, then the end.
enum Step {
    Progress(Progress),
    End(Result<(), Failure>),
}

async fn create(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    answer(&server, &bytes).await.unwrap_or_else(|failure| respond::native_failure(&failure))
}

/// The last word alone.
async fn whole(mut steps: mpsc::UnboundedReceiver<Step>) -> Response {
    while let Some(step) = steps.recv().await {
        if let Step::End(Err(failure)) = step {
            return respond::native_failure(&failure);
        }
    }
    respond::json(StatusCode::OK, &json!({"status": "success"}))
}

async fn answer(server: &Arc<Server>, bytes: &Bytes) -> Result<Response, Failure> {
    let request: CreateRequest = body::request(bytes)?;
    let streams = request.stream.unwrap_or(true);
    let (sender, mut steps) = mpsc::unbounded_channel();
    let work = Arc::clone(server);
    tokio::spawn(async move {
        let progress = sender.clone();
        let made = with_store(&work, move |store| {
            store.create_with(&request, Some(&ProcessQuantizer), &mut |step| {
                // Nobody listens: the model is made all the same, as in Ollama.
                drop(progress.send(Step::Progress(step)));
            })
        });
        drop(sender.send(Step::End(made.await.map(drop))));
    });
    if !streams {
        // Nobody sees the steps, and hashing a large file takes minutes.
        return Ok(respond::patient(server, async move { whole(steps).await }).await);
    }
    let mut early = Vec::new();
    loop {
        match steps.recv().await {
            Some(Step::End(Err(failure))) => return Err(failure),
            Some(Step::Progress(step)) => {
                let first = step.status == FIRST_STEP;
                early.push(wire::line(&step));
                if !first {
                    break;
                }
            }
            Some(Step::End(Ok(()))) | None => break,
        }
    }
    let lines = stream::unfold((early.into_iter(), steps), |(mut early, mut steps)| async move {
        if let Some(line) = early.next() {
            return Some((Ok::<_, Infallible>(line), (early, steps)));
        }
        let line = match steps.recv().await? {
            Step::Progress(step) => wire::line(&step),
            Step::End(Ok(())) => return None,
            Step::End(Err(failure)) => wire::line(&json!({"error": failure.message})),
        };
        Some((Ok(line), (early, steps)))
    });
    Ok(respond::with_type(StatusCode::OK, NDJSON, Body::from_stream(lines)))
}

//! `POST /api/pull`: a model arrives, with a line for each step and each piece of progress. Whoever ends the
//! request ends the pull, unless somebody else wants the same files; what arrived stays.

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
use hypura_store::{ModelEntry, Progress, PullError, PullRequest, Store, StoreError};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::request::lookup_failure;
use super::wire;
use crate::jobs::find;
use crate::models::{LookupError, failure_of_store};
use crate::respond::NDJSON;
use crate::state::Server;
use crate::{Failure, body, respond};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/pull", post(pull))
}

/// `model`, or its older word.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    model: String,
    name: String,
    insecure: bool,
    stream: Option<bool>,
    hypura: Extras,
}

/// Not Ollama's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Extras {
    /// Although the disk seems to have no room.
    force: bool,
}

/// What the work tells: steps, then the end.
enum Step {
    Progress(Progress),
    End(Result<(), Failure>),
}

type Steps = mpsc::UnboundedReceiver<Step>;

async fn pull(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    answer(&server, &bytes).await.unwrap_or_else(|failure| respond::native_failure(&failure))
}

async fn answer(server: &Arc<Server>, bytes: &Bytes) -> Result<Response, Failure> {
    let wanted: Wanted = body::request(bytes)?;
    let name = if wanted.model.is_empty() { wanted.name } else { wanted.model };
    let invalid = |_| Failure::bad_request("invalid model name");
    hypura_store::fetch::RemoteName::parse(&name).map_err(invalid)?;
    let steps = match server.catalog.store() {
        Some(store) => {
            start(store, PullRequest { name, insecure: wanted.insecure, force: wanted.hypura.force })
        }
        None => installed(server, &name).await?,
    };
    if wanted.stream == Some(false) {
        // Nobody sees the steps, and a model takes minutes.
        return Ok(respond::patient(server, whole(steps)).await);
    }
    let lines = stream::unfold(steps, |mut steps| async move {
        let line = match steps.recv().await? {
            Step::Progress(step) => wire::line(&step),
            Step::End(Ok(())) => return None,
            Step::End(Err(failure)) => wire::line(&json!({"error": failure.message})),
        };
        Some((Ok::<_, Infallible>(line), steps))
    });
    Ok(respond::with_type(StatusCode::OK, NDJSON, Body::from_stream(lines)))
}

/// Pulls on a thread of its own, for as long as somebody listens.
fn start(store: Arc<Store>, request: PullRequest) -> Steps {
    let (sender, steps) = mpsc::unbounded_channel();
    tokio::task::spawn_blocking(move || {
        // Whoever does not listen any more is seen by `is_closed`.
        let mut watch = |step| drop(sender.send(Step::Progress(step)));
        let end = store.pulls().pull(&request, &mut watch, &|| !sender.is_closed());
        if let Err(error) = &end {
            tracing::warn!(model = request.name, %error, "a pull ended without a model");
        }
        drop(sender.send(Step::End(end.map(drop).map_err(|error| failure(&error)))));
    });
    steps
}

fn failure(error: &PullError) -> Failure {
    match error {
        PullError::Store(error @ (StoreError::InvalidName(_) | StoreError::BadRequest(_))) => {
            failure_of_store(error)
        }
        PullError::NoRoom { .. } => Failure::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
        other => Failure::internal(other.public_message()),
    }
}

/// Where there is no store to pull into, what is there is pulled already.
async fn installed(server: &Arc<Server>, name: &str) -> Result<Steps, Failure> {
    let (sender, steps) = mpsc::unbounded_channel();
    let end = match find(server, name).await {
        Ok(entry) => {
            for step in steps_of(&entry) {
                drop(sender.send(Step::Progress(step)));
            }
            Ok(())
        }
        Err(LookupError::NotInstalled) => {
            drop(sender.send(Step::Progress(Progress::status("pulling manifest"))));
            Err(Failure::internal(format!(
                "pull model manifest: model '{name}' not found, and this server has no store to pull into"
            )))
        }
        Err(error) => return Err(lookup_failure(error, name)),
    };
    drop(sender.send(Step::End(end)));
    Ok(steps)
}

fn steps_of(entry: &ModelEntry) -> Vec<Progress> {
    let layer = Progress {
        status: format!("pulling {}", entry.digest.get(..12).unwrap_or_default()),
        digest: Some(format!("sha256:{}", entry.digest)),
        total: Some(entry.size),
        completed: Some(entry.size),
    };
    let mut steps = vec![Progress::status("pulling manifest"), layer];
    steps.extend(["verifying sha256 digest", "writing manifest", "success"].map(Progress::status));
    steps
}

/// The last word alone.
async fn whole(mut steps: Steps) -> Response {
    while let Some(step) = steps.recv().await {
        match step {
            Step::Progress(_) => {}
            Step::End(Ok(())) => return respond::json(StatusCode::OK, &json!({"status": "success"})),
            Step::End(Err(failure)) => return respond::native_failure(&failure),
        }
    }
    respond::native_failure(&Failure::internal("the pull was cut off"))
}

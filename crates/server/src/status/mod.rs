//! What whoever watches the server is told: the page at `/ui`, `hypura top`, and anybody else's programs.
//!
//! - `document`: the loaded models, how fast they go and where their weights are
//! - `machine`: memory, processors, what is known of the disk
//! - `desk`: one document for all who ask at the same time
//! - `experts`: layers × experts
//! - `plan`: what a model would be like, here or elsewhere; `kept`: those that were asked for lately
//! - `quantizations`: which others the repository of a model has
//!
//! Invariants: nothing here waits for a model, loads one, or names a path of this machine; what was not
//! measured is null.

mod desk;
mod document;
mod experts;
mod kept;
mod machine;
mod plan;
mod quantizations;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;

use crate::respond;
use crate::state::Server;

pub use desk::Desk;
pub(crate) use document::workers;
pub use kept::Plans;

/// The routes of this folder.
pub fn routes() -> Router<Arc<Server>> {
    let here = Router::new().route("/api/hypura/status", get(status));
    here.merge(experts::routes()).merge(plan::routes()).merge(quantizations::routes())
}

async fn status(State(server): State<Arc<Server>>) -> Response {
    let asked = Arc::clone(&server);
    let bytes = server.status.latest(move |processors| document::of(&asked, processors)).await;
    respond::with_type(StatusCode::OK, respond::JSON, axum::body::Body::from(bytes))
}

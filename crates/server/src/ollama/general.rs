//! What is there, which version, and what only Ollama's cloud could do.

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::OLLAMA_VERSION;
use crate::state::Server;
use crate::{Failure, page, respond};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/", get(root))
        .route("/api/version", get(version))
        .route("/api/status", get(status))
        .route("/api/me", post(unauthorized))
        .route("/api/signout", post(unauthorized))
        .route("/api/user/keys/{key}", delete(unauthorized))
        .route("/api/experimental/web_search", post(no_cloud))
        .route("/api/experimental/web_fetch", post(no_cloud))
        .route("/api/experimental/model-recommendations", get(recommendations))
}

/// Programs probe for this text; browsers get the page.
async fn root(headers: HeaderMap) -> Response {
    if page::wants_html(&headers) {
        return page::redirect();
    }
    respond::text(StatusCode::OK, "Ollama is running")
}

async fn version() -> Response {
    respond::json(StatusCode::OK, &json!({"version": OLLAMA_VERSION, "hypura": env!("CARGO_PKG_VERSION")}))
}

async fn status() -> Response {
    respond::json(StatusCode::OK, &json!({"cloud": {"disabled": true, "source": "env"}}))
}

async fn unauthorized() -> Response {
    respond::json(StatusCode::UNAUTHORIZED, &json!({"error": "unauthorized", "signin_url": ""}))
}

async fn no_cloud() -> Response {
    let message = "this server runs models of this machine only: cloud features are disabled";
    respond::native_failure(&Failure::new(StatusCode::FORBIDDEN, message))
}

async fn recommendations() -> Response {
    respond::json(StatusCode::OK, &json!({"recommendations": []}))
}

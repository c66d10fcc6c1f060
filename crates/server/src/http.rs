//! The router: every protocol's routes, the guards around them, and the answers to what no route knows.
//!
//! A protocol adds its routes in [`router`] with one `merge`. Handlers take the body as bytes and read it
//! with [`super::body`]; no extractor that looks at the Content-Type.

use std::any::Any;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use axum::{Router, middleware};
use http::{HeaderValue, StatusCode};
use tower_http::catch_panic::CatchPanicLayer;

use super::state::Server;
use super::{
    Failure, anthropic, bodies, guard, metrics, ollama, openai, origin, page, refusal, respond, status,
};

/// Header that tells our own version; `/api/version` tells Ollama's.
const SERVER_HEADER: &str = concat!("hypura/", env!("CARGO_PKG_VERSION"));

/// All routes.
pub fn router(server: Arc<Server>) -> Router {
    let routes = Router::new()
        .merge(ollama::routes())
        .merge(metrics::routes())
        .merge(status::routes())
        .merge(page::routes())
        .merge(openai::routes())
        .merge(anthropic::routes());
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&server), bodies::bound))
        .layer(middleware::map_response(with_server_header))
        .layer(middleware::from_fn_with_state(Arc::clone(&server), guard::key))
        .layer(middleware::from_fn_with_state(Arc::clone(&server), origin::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&server), guard::host))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(server)
}

async fn unknown_path(request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/v1/") {
        return refusal::of_path(path, &Failure::not_found("404 page not found"));
    }
    respond::text(StatusCode::NOT_FOUND, "404 page not found")
}

async fn wrong_method(request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/v1/") {
        let failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed");
        return refusal::of_path(path, &failure);
    }
    respond::text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed")
}

async fn with_server_header(mut response: Response) -> Response {
    response.headers_mut().insert(http::header::SERVER, HeaderValue::from_static(SERVER_HEADER));
    response
}

/// A panic is a bug of ours, but no reason to hang up without a word.
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = %text, "a request handler panicked");
    respond::native_failure(&Failure::internal("internal error, see the log of the server"))
}

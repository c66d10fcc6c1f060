//! The guard against foreign web pages.
//!
//! A request without `Origin` comes from no page and is let through. One with a foreign origin is refused
//! with 403, also when it is no preflight: a page that cannot read the answer could still start the work.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::respond;
use super::state::Server;

/// Headers that pages may send.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, User-Agent, Accept, X-Requested-With, OpenAI-Beta, \
    x-stainless-arch, x-stainless-async, x-stainless-custom-poll-interval, x-stainless-helper-method, \
    x-stainless-lang, x-stainless-os, x-stainless-package-version, x-stainless-poll-helper, \
    x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout, \
    anthropic-version, anthropic-beta, anthropic-dangerous-direct-browser-access, x-api-key";
/// Methods that pages may use.
const ALLOWED_METHODS: &str = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS";
/// How long a browser may remember that, in seconds.
const MAX_AGE: &str = "43200";

/// The middleware: answers preflights, refuses foreign pages, marks answers for allowed ones.
pub async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    if is_same(&origin, request.headers()) {
        return next.run(request).await;
    }
    let allowed = origin.to_str().is_ok_and(|origin| server.http.origins.allow(origin));
    if !allowed {
        return respond::with_type(StatusCode::FORBIDDEN, "text/plain", axum::body::Body::empty());
    }
    let preflight = request.method() == Method::OPTIONS;
    let mut response = if preflight {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOWED_METHODS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        response
    } else {
        next.run(request).await
    };
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    response
}

/// A page that this server sent itself.
fn is_same(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    matches!((origin, host), (Some(("http" | "https", origin)), Some(host)) if origin == host)
}

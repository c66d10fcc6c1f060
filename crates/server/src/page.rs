//! The page at `/ui`. Its files are the same for everybody and have no secrets in them, so they need no key;
//! what they ask of the server does.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hypura_ui::Asset;
use std::io::Write as _;

use super::respond;
use super::state::Server;

/// Where the page is.
pub const PATH: &str = "/ui";

/// The routes of this file.
pub fn routes() -> Router<Arc<Server>> {
    Router::new().route(PATH, get(page)).route("/ui/", get(page)).route("/ui/{name}", get(file))
}

/// Whether a path needs no key: what the browser asks for before anybody can type one.
#[must_use]
pub fn is_open(path: &str) -> bool {
    path == PATH || path.starts_with("/ui/")
}

/// `/` for who asks for HTML, which browsers do and programs do not.
#[must_use]
pub fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/html"))
}

/// The way from `/` to the page.
#[must_use]
pub fn redirect() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static(PATH));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

async fn page(request: Request) -> Response {
    answer(hypura_ui::page(), request.headers(), "no-cache")
}

async fn file(Path(name): Path<String>, request: Request) -> Response {
    match hypura_ui::file(&name) {
        // Its name changes with its contents.
        Some(asset) => answer(asset, request.headers(), "public, max-age=31536000, immutable"),
        None => respond::text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn answer(asset: &'static Asset, asked: &HeaderMap, caching: &'static str) -> Response {
    let is_known =
        asked.get(header::IF_NONE_MATCH).is_some_and(|etag| etag.as_bytes() == asset.etag.as_bytes());
    let takes_gzip = asked.get_all(header::ACCEPT_ENCODING).iter().any(|coding| {
        coding.to_str().is_ok_and(|coding| coding.split(',').any(|one| one.trim().starts_with("gzip")))
    });
    let mut response = if is_known {
        respond::with_type(StatusCode::NOT_MODIFIED, asset.content_type, Body::empty())
    } else if takes_gzip {
        let mut response =
            respond::with_type(StatusCode::OK, asset.content_type, Body::from(compressed(asset)));
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        respond::with_type(StatusCode::OK, asset.content_type, Body::from(asset.bytes))
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ETAG, asset.etag),
        (header::CACHE_CONTROL, caching),
        (header::VARY, "Accept-Encoding"),
        (header::CONTENT_SECURITY_POLICY, hypura_ui::SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

/// Compressed once, by the first who asks.
static COMPRESSED: LazyLock<Vec<(&'static str, Bytes)>> =
    LazyLock::new(|| hypura_ui::all().map(|asset| (asset.name, compress(asset.bytes))).collect());

fn compressed(asset: &Asset) -> Bytes {
    let found = COMPRESSED.iter().find(|(name, _)| *name == asset.name);
    found.map_or_else(Bytes::new, |(_, bytes)| bytes.clone())
}

fn compress(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory cannot fail.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    Bytes::from(written.unwrap_or_default())
}

/// Bytes that a browser loads for the page at first.
#[cfg(test)]
fn compressed_bytes() -> usize {
    COMPRESSED.iter().map(|(_, bytes)| bytes.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_no_larger_than_promised() {
        assert!((1..=400_000).contains(&compressed_bytes()), "{}", compressed_bytes());
    }

    #[test]
    fn browsers_ask_for_html_and_programs_do_not() {
        let accept = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            headers
        };
        assert!(wants_html(&accept("text/html,application/xhtml+xml,*/*;q=0.8")));
        assert!(wants_html(&accept("application/xml, text/html;q=0.9")));
        assert!(!wants_html(&accept("*/*")) && !wants_html(&accept("application/json")));
        assert!(!wants_html(&HeaderMap::new()));
    }
}

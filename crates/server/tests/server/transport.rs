//! What holds for every endpoint.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;
use http::{Method, Request, StatusCode};
use hypura_server::HttpSettings;
use hypura_server::origins::Origins;
use serde_json::json;

use crate::fake::Step;
use crate::kit::{Kit, Setup, post, read, request, until};

#[tokio::test]
async fn http_the_content_type_does_not_matter() {
    let kit = Kit::new();
    for kind in ["application/x-www-form-urlencoded", "text/plain", "application/json"] {
        let mut request =
            post("/api/generate", json!({"MODEL": "m", "prompt": "x", "stream": false, "new": [1]}));
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        assert_eq!(kit.send(request).await.json()["response"], "Hello world");
    }
}

#[tokio::test]
async fn http_a_body_of_many_megabytes_is_read() {
    let kit = Kit::new();
    let prompt = "word ".repeat(1_000_000);
    let body = json!({"model": "m", "prompt": prompt, "stream": false});
    assert_eq!(kit.post("/api/generate", body).await.status, StatusCode::OK);
}

#[tokio::test]
async fn http_bad_bodies_are_400_with_a_json_error() {
    let kit = Kit::new();
    for path in [
        "/api/generate",
        "/api/chat",
        "/api/embed",
        "/api/embeddings",
        "/api/show",
        "/api/pull",
        "/api/create",
    ] {
        let empty = kit.send(request(Method::POST, path, "")).await;
        assert_eq!(
            (empty.status, empty.error().as_str()),
            (StatusCode::BAD_REQUEST, "missing request body"),
            "{path}"
        );
        assert_eq!(empty.header("content-type"), "application/json; charset=utf-8");
        let deep = "[".repeat(100_000);
        let cases: [&[u8]; 5] =
            [b"{", b"[]", deep.as_bytes(), b"{\xff}", b"{\"model\":{\"a\":1},\"name\":[]}"];
        for body in cases {
            let answer = kit.send(request(Method::POST, path, body.to_vec())).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {:?}", &body[..body.len().min(20)]);
            assert!(!answer.error().is_empty());
        }
    }
}

#[tokio::test]
async fn http_a_body_beyond_the_limit_is_a_413_in_the_words_of_its_protocol() {
    let kit = Kit::new();
    let body = bytes::Bytes::from(vec![b' '; hypura_server::body::MOST_BYTES + 1]);
    // Without a length in its head it is counted as it comes.
    let counted = || {
        let chunks = body.chunks(1 << 20).map(|chunk| Ok::<_, std::io::Error>(body.slice_ref(chunk)));
        Body::from_stream(futures_util::stream::iter(chunks.collect::<Vec<_>>()))
    };
    for (path, at) in [
        ("/api/generate", "/error"),
        ("/api/chat", "/error"),
        ("/api/embed", "/error"),
        ("/api/create", "/error"),
        ("/v1/chat/completions", "/error/message"),
        ("/v1/completions", "/error/message"),
        ("/v1/embeddings", "/error/message"),
        ("/v1/responses", "/error/message"),
        ("/tokenize", "/error/message"),
        ("/v1/messages", "/error/message"),
        ("/v1/messages/count_tokens", "/error/message"),
    ] {
        let answer = kit.send(request(Method::POST, path, body.clone())).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        let json = answer.json();
        let message = json.pointer(at).and_then(serde_json::Value::as_str).unwrap_or_default();
        // Texts alone are shorter than pictures.
        let texts = path.contains("embed") || ["/api/create", "/v1/completions", "/tokenize"].contains(&path);
        let most = if texts { "at most 32 MiB" } else { "at most 128 MiB" };
        assert!(message.contains(most), "{path}: {json}");
        let answer = kit.send(request(Method::POST, path, counted())).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        if path.starts_with("/v1/messages") {
            assert_eq!(
                (&json["type"], &json["error"]["type"]),
                (&json!("error"), &json!("invalid_request_error"))
            );
        }
    }
}

#[tokio::test]
async fn http_unknown_paths_and_wrong_methods() {
    let kit = Kit::new();
    let unknown = kit.get("/api/nothing").await;
    assert_eq!((unknown.status, unknown.text()), (StatusCode::NOT_FOUND, "404 page not found"));
    let wrong = kit.get("/api/generate").await;
    assert_eq!((wrong.status, wrong.text()), (StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed"));
    assert_eq!(kit.get("/v1/nothing").await.json()["error"]["type"], "not_found_error");
}

#[tokio::test]
async fn http_native_streams_are_lines_of_json_and_the_default() {
    let kit = Kit::new();
    let answer = kit.post("/api/generate", json!({"model": "m", "prompt": "x"})).await;
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert!(answer.text().ends_with('\n'));
    let lines = answer.lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines.iter().filter(|line| line["done"] == true).count(), 1);
    let whole = kit.post("/api/generate", json!({"model": "m", "prompt": "x", "stream": false})).await;
    assert_eq!(whole.json()["response"], "Hello world");
    assert_eq!(whole.json()["done"], true);
}

#[tokio::test]
async fn http_each_piece_goes_out_before_the_next_exists() {
    let kit = Kit::answering(&[Step::Text("first"), Step::Wait, Step::Text("second")]);
    kit.script.gate.shut();
    let response = kit.start(post("/api/generate", json!({"model": "m", "prompt": "x"}))).await;
    let mut body = response.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("first"));
    kit.script.gate.open();
    let second = body.next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&second).contains("second"));
}

#[tokio::test]
async fn http_an_error_before_the_first_piece_has_its_status() {
    let kit = Kit::answering(&[Step::Fail("disk error")]);
    *kit.script.fail_submit.lock().unwrap() = Some(hypura_server::Failure::busy());
    let answer =
        kit.post("/api/chat", json!({"model": "m", "messages": [{"role": "user", "content": "x"}]})).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.error(), "server busy, please try again.  maximum pending requests exceeded");
}

#[tokio::test]
async fn http_an_error_after_the_first_piece_is_the_last_line() {
    let kit = Kit::answering(&[Step::Text("so far"), Step::Fail("disk error")]);
    let answer = kit.post("/api/generate", json!({"model": "m", "prompt": "x"})).await;
    assert_eq!(answer.status, StatusCode::OK);
    let lines = answer.lines();
    assert_eq!(lines.last().unwrap(), &json!({"error": "disk error"}));
    assert_eq!(lines.len(), 2);
    let whole = kit.post("/api/generate", json!({"model": "m", "prompt": "x", "stream": false})).await;
    assert_eq!((whole.status, whole.error()), (StatusCode::INTERNAL_SERVER_ERROR, "disk error".to_owned()));
}

#[tokio::test]
async fn http_a_client_that_leaves_a_stream_cancels_it() {
    let kit = Kit::answering(&[Step::Text("first"), Step::Wait, Step::Text("second")]);
    kit.script.gate.shut();
    let response = kit.start(post("/api/generate", json!({"model": "m", "prompt": "x"}))).await;
    drop(response);
    until("cancelled", || kit.script.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    kit.script.gate.open();
}

#[tokio::test]
async fn http_a_client_that_leaves_while_its_model_loads_frees_its_place() {
    let kit = Arc::new(Kit::new());
    kit.script.load_gate.shut();
    let waiting = Arc::clone(&kit);
    let task = tokio::spawn(async move {
        waiting.post("/api/generate", json!({"model": "m", "prompt": "x"})).await;
    });
    until("loading", || kit.server.models.loading().is_some()).await;
    task.abort();
    kit.script.load_gate.open();
    until("loaded", || kit.server.models.running().len() == 1).await;
    assert!(kit.script.requests.lock().unwrap().is_empty());
    until("nobody counted", || kit.server.counters.active.load(std::sync::atomic::Ordering::SeqCst) == 0)
        .await;
}

#[tokio::test]
async fn http_durations_are_integers_and_times_are_rfc_3339() {
    let kit = Kit::new();
    let answer =
        kit.post("/api/generate", json!({"model": "m", "prompt": "x", "stream": false})).await.json();
    for key in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"] {
        assert!(answer[key].as_u64().unwrap() > 0, "{key}");
    }
    let created = answer["created_at"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.parse::<jiff::Timestamp>().is_ok(), "{created}");
    let tags = kit.get("/api/tags").await.json();
    assert!(tags["models"][0]["modified_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
}

#[tokio::test]
async fn http_a_bearer_token_is_ignored_unless_there_is_a_key() {
    let kit = Kit::new();
    let with = |key: &str| {
        let mut request = request(Method::GET, "/api/tags", Body::empty());
        request.headers_mut().insert("authorization", key.parse().unwrap());
        request
    };
    assert_eq!(kit.send(with("Bearer anything")).await.status, StatusCode::OK);
    let http = HttpSettings { api_key: Some("secret".into()), ..HttpSettings::default() };
    let kit = Setup { http, ..Setup::default() }.start();
    assert_eq!(kit.get("/api/tags").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(kit.send(with("Bearer wrong")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(kit.send(with("Bearer secret")).await.status, StatusCode::OK);
    assert_eq!(kit.send(with("bearer secret")).await.status, StatusCode::OK);
    let mut other = request(Method::GET, "/api/tags", Body::empty());
    other.headers_mut().insert("x-api-key", "secret".parse().unwrap());
    assert_eq!(kit.send(other).await.status, StatusCode::OK);
    assert_eq!(kit.get("/").await.status, StatusCode::OK);
    assert_eq!(kit.get("/health").await.status, StatusCode::OK);
}

fn from_page(method: Method, path: &str, origin: &str) -> Request<Body> {
    let mut request = request(method, path, Body::empty());
    request.headers_mut().insert("origin", origin.parse().unwrap());
    request
}

#[tokio::test]
async fn http_preflights_and_foreign_origins() {
    let http = HttpSettings { origins: Origins::of_list("https://mine.example"), ..HttpSettings::default() };
    let kit = Setup { http, ..Setup::default() }.start();
    for origin in ["http://localhost:3000", "app://obsidian.md", "vscode-webview://x", "https://mine.example"]
    {
        let answer = kit.send(from_page(Method::OPTIONS, "/api/chat", origin)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        let allowed = answer.header("access-control-allow-headers").to_lowercase();
        let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
        for name in [
            "authorization",
            "content-type",
            "user-agent",
            "accept",
            "x-requested-with",
            "openai-beta",
            "anthropic-version",
            "anthropic-beta",
            "x-api-key",
            "x-stainless-arch",
            "x-stainless-async",
            "x-stainless-custom-poll-interval",
            "x-stainless-helper-method",
            "x-stainless-lang",
            "x-stainless-os",
            "x-stainless-package-version",
            "x-stainless-poll-helper",
            "x-stainless-retry-count",
            "x-stainless-runtime",
            "x-stainless-runtime-version",
            "x-stainless-timeout",
        ] {
            assert!(allowed.contains(&name), "{name}");
        }
        let get = kit.send(from_page(Method::GET, "/api/tags", origin)).await;
        assert_eq!((get.status, get.header("access-control-allow-origin")), (StatusCode::OK, origin));
    }
    for method in [Method::OPTIONS, Method::GET] {
        assert_eq!(
            kit.send(from_page(method, "/api/tags", "https://evil.example")).await.status,
            StatusCode::FORBIDDEN
        );
    }
    let same = kit.send(from_page(Method::GET, "/api/tags", "http://127.0.0.1:11434")).await;
    assert_eq!(same.status, StatusCode::OK);
}

#[tokio::test]
async fn http_a_foreign_host_is_refused_on_the_loopback_only() {
    let foreign =
        || Request::builder().uri("/api/tags").header("host", "evil.example").body(Body::empty()).unwrap();
    let answer = Kit::new().send(foreign()).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::FORBIDDEN, ""));
    let http = HttpSettings { loopback: false, ..HttpSettings::default() };
    assert_eq!(Setup { http, ..Setup::default() }.start().send(foreign()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn http_head_works_where_clients_use_it() {
    let kit = Kit::new();
    for path in ["/", "/api/version", "/api/tags"] {
        let answer = kit.send(request(Method::HEAD, path, Body::empty())).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, ""), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_metadata_never_waits_for_a_load_or_an_answer() {
    let kit = Arc::new(Kit::answering(&[Step::Text("first"), Step::Wait]));
    kit.script.gate.shut();
    let response = kit.start(post("/api/generate", json!({"model": "m", "prompt": "x"}))).await;
    kit.script.load_gate.shut();
    let other = Arc::clone(&kit);
    let loading =
        tokio::spawn(
            async move { other.post("/api/generate", json!({"model": "plain", "prompt": "x"})).await },
        );
    until("loading", || kit.server.models.loading().is_some()).await;
    // Each of these would hang for ever if it waited for either.
    for path in ["/api/tags", "/api/ps", "/api/version", "/", "/health", "/metrics"] {
        assert_eq!(kit.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(kit.post("/api/show", json!({"model": "m"})).await.status, StatusCode::OK);
    kit.script.load_gate.open();
    kit.script.gate.open();
    assert_eq!(loading.await.unwrap().status, StatusCode::OK);
    drop(response);
}

#[tokio::test]
async fn http_headers_go_out_before_the_first_token() {
    let kit = Kit::answering(&[Step::Wait, Step::Text("late")]);
    kit.script.gate.shut();
    // `start` returns with the head; the prompt is not read yet.
    let response = kit.start(post("/api/generate", json!({"model": "m", "prompt": "x"}))).await;
    assert_eq!(response.status(), StatusCode::OK);
    kit.script.gate.open();
    assert_eq!(read(response).await.lines()[0]["response"], "late");
}

fn impatient() -> HttpSettings {
    HttpSettings {
        heartbeat: Duration::from_millis(20),
        headers_after: Duration::from_millis(20),
        ..HttpSettings::default()
    }
}

#[tokio::test]
async fn http_headers_and_heartbeats_while_a_model_loads() {
    let kit = Setup { http: impatient(), ..Setup::default() }.start();
    kit.script.load_gate.shut();
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    let response = kit.start(post("/api/chat", body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body().into_data_stream();
    let beat = body.next().await.unwrap().unwrap();
    let beat: serde_json::Value = serde_json::from_slice(&beat).unwrap();
    assert_eq!((&beat["message"]["content"], &beat["done"]), (&json!(""), &json!(false)));
    assert_eq!(beat["message"]["role"], "assistant");
    kit.script.load_gate.open();
    let mut text = String::new();
    while let Some(chunk) = body.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    assert!(text.contains("Hello") && text.contains("\"done\":true"));
}

#[tokio::test]
async fn http_an_answer_in_one_piece_is_kept_alive_by_white_space() {
    let kit =
        Setup { http: impatient(), steps: vec![Step::Wait, Step::Text("late")], ..Setup::default() }.start();
    kit.script.gate.shut();
    let response =
        kit.start(post("/api/generate", json!({"model": "m", "prompt": "x", "stream": false}))).await;
    let mut body = response.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), " ");
    kit.script.gate.open();
    let mut rest = Vec::new();
    while let Some(chunk) = body.next().await {
        rest.extend(chunk.unwrap());
    }
    let value: serde_json::Value = serde_json::from_slice(&rest).unwrap();
    assert_eq!(value["response"], "late");
}

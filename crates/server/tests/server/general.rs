//! What is there: `/`, versions, health, metrics.

use axum::body::Body;
use http::{Method, StatusCode};

use crate::kit::{Kit, request};

#[tokio::test]
async fn general_the_root_says_that_ollama_is_running() {
    let kit = Kit::new();
    let answer = kit.get("/").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "Ollama is running"));
    assert!(answer.header("content-type").starts_with("text/plain"));
    let head = kit.send(request(Method::HEAD, "/", Body::empty())).await;
    assert_eq!((head.status, head.text()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn general_the_version_is_digits_and_dots_and_new_enough() {
    let kit = Kit::new();
    let version = kit.get("/api/version").await.json()["version"].as_str().unwrap().to_owned();
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(parts >= vec![0, 6, 4], "{version}");
    assert!(kit.get("/api/version").await.header("server").starts_with("hypura/"));
    let head = kit.send(request(Method::HEAD, "/api/version", Body::empty())).await;
    assert_eq!(head.status, StatusCode::OK);
}

#[tokio::test]
async fn general_the_cloud_is_disabled() {
    let answer = Kit::new().get("/api/status").await.json();
    assert_eq!(answer, serde_json::json!({"cloud": {"disabled": true, "source": "env"}}));
}

#[tokio::test]
async fn general_accounts_and_web_searches_are_refused() {
    let kit = Kit::new();
    let me = kit.post("/api/me", serde_json::json!({})).await;
    assert_eq!((me.status, me.error()), (StatusCode::UNAUTHORIZED, "unauthorized".to_owned()));
    assert!(me.json()["signin_url"].is_string());
    assert_eq!(kit.post("/api/signout", serde_json::json!({})).await.status, StatusCode::UNAUTHORIZED);
    let key = kit.send(request(Method::DELETE, "/api/user/keys/abc", Body::empty())).await;
    assert_eq!(key.status, StatusCode::UNAUTHORIZED);
    for path in ["/api/experimental/web_search", "/api/experimental/web_fetch"] {
        assert_eq!(kit.post(path, serde_json::json!({})).await.status, StatusCode::FORBIDDEN);
    }
    let list = kit.get("/api/experimental/model-recommendations").await.json();
    assert_eq!(list, serde_json::json!({"recommendations": []}));
}

#[tokio::test]
async fn habits_health_and_metrics() {
    let kit = Kit::new();
    // Before there is a model, sums are of nothing.
    let empty = kit.get("/metrics").await;
    assert!(empty.text().contains("llamacpp:prompt_tokens_total 0\n"), "{}", empty.text());
    assert!(!empty.text().contains("-0"), "{}", empty.text());
    for path in ["/health", "/v1/health"] {
        let answer = kit.get(path).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, serde_json::json!({"status": "ok"})));
    }
    kit.post("/api/generate", serde_json::json!({"model": "m", "prompt": "x", "stream": false})).await;
    let metrics = kit.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    for name in
        ["llamacpp:prompt_tokens_total ", "llamacpp:requests_processing ", "hypura_requests_total 1\n"]
    {
        assert!(metrics.text().contains(name), "{name}");
    }
    assert!(metrics.text().contains("hypura_resident_bytes{model=\"m:latest\",tier=\"RAM\"} 100\n"));
    for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
        assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
    }
}

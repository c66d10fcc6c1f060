//! What takes long is never silent, on every endpoint that may have to wait for a model.

use std::time::Duration;

use futures_util::StreamExt as _;
use http::StatusCode;
use hypura_server::HttpSettings;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fake::Step;
use crate::kit::{Kit, Setup, post};

fn impatient(steps: &[Step]) -> Setup {
    let http = HttpSettings {
        heartbeat: Duration::from_millis(20),
        headers_after: Duration::from_millis(20),
        ..HttpSettings::default()
    };
    Setup { http, steps: steps.to_vec(), ..Setup::default() }
}

fn messages(more: Value) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Reads the next chunk of a body as text; `None` at its end.
async fn next(body: &mut axum::body::BodyDataStream) -> Option<String> {
    let chunk = body.next().await?.unwrap();
    Some(String::from_utf8(chunk.to_vec()).unwrap())
}

#[tokio::test]
async fn http_whatever_loads_a_model_sends_headers_and_white_space() {
    for (path, body) in [
        ("/api/generate", json!({"model": "m"})),
        ("/api/generate", json!({"model": "m", "prompt": "x", "stream": false})),
        ("/api/generate", json!({"model": "m", "prompt": "x", "_debug_render_only": true})),
        ("/api/chat", json!({"model": "m", "messages": []})),
        ("/api/chat", messages(json!({"_debug_render_only": true}))),
        ("/api/embed", json!({"model": "vec", "input": "x"})),
        ("/api/embed", json!({"model": "vec"})),
        ("/api/embeddings", json!({"model": "vec", "prompt": "x"})),
        ("/v1/embeddings", json!({"model": "vec", "input": "x"})),
        ("/v1/messages", messages(json!({}))),
        ("/v1/messages/count_tokens", messages(json!({}))),
        ("/v1/chat/completions", messages(json!({}))),
        ("/v1/completions", json!({"model": "m", "prompt": "x"})),
        ("/v1/responses", json!({"model": "m", "input": "x"})),
        ("/apply-template", messages(json!({}))),
        ("/tokenize", json!({"model": "m", "content": "x"})),
        ("/detokenize", json!({"model": "m", "tokens": [1]})),
    ] {
        let kit = impatient(&[Step::Text("Hello")]).start();
        kit.script.load_gate.shut();
        // `start` returns with the head, while the model still loads.
        let response = kit.start(post(path, body)).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let mut body = response.into_body().into_data_stream();
        assert_eq!(next(&mut body).await.unwrap(), " ", "{path}");
        kit.script.load_gate.open();
        let mut rest = String::new();
        while let Some(text) = next(&mut body).await {
            rest.push_str(&text);
        }
        let answer: Value =
            serde_json::from_str(&rest).unwrap_or_else(|error| panic!("{path}: {error}: {rest}"));
        assert!(answer["error"].is_null(), "{path}: {answer}");
    }
}

#[tokio::test]
async fn http_a_bad_request_still_has_its_status() {
    let kit = Kit::new();
    for (path, body, status) in [
        ("/api/embed", json!({"model": "vec", "input": 3}), 400),
        ("/v1/embeddings", json!({"model": "nope", "input": "x"}), 404),
        ("/api/generate", json!({"model": "nope"}), 404),
        (
            "/v1/messages/count_tokens",
            json!({"model": "nope", "messages": [{"role": "user", "content": "x"}]}),
            404,
        ),
    ] {
        assert_eq!(kit.post(path, body).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn http_a_client_that_leaves_an_embedding_cancels_it() {
    let kit = impatient(&[]).start();
    kit.script.load_gate.shut();
    let response = kit.start(post("/api/embed", json!({"model": "vec", "input": "x"}))).await;
    drop(response);
    kit.script.load_gate.open();
    crate::kit::until("loaded", || kit.server.models.running().len() == 1).await;
    assert!(kit.script.embedded.lock().unwrap().is_empty());
}

/// The heartbeat of each protocol's stream, and how it reports success.
fn streams() -> [(&'static str, Value, &'static str, &'static str); 6] {
    let with = |mut body: Value| {
        body["stream"] = json!(true);
        body
    };
    [
        ("/api/generate", with(json!({"model": "m", "prompt": "x"})), "\"response\":\"\"", "\"done\":true"),
        ("/api/chat", with(messages(json!({}))), "\"content\":\"\"", "\"done\":true"),
        ("/v1/chat/completions", with(messages(json!({}))), ": ping\n\n", "[DONE]"),
        ("/v1/completions", with(json!({"model": "m", "prompt": "x"})), ": ping\n\n", "[DONE]"),
        ("/v1/messages", with(messages(json!({}))), "event: ping\n", "event: message_stop\n"),
        (
            "/v1/responses",
            with(json!({"model": "m", "input": "x"})),
            ": ping\n\n",
            "event: response.completed\n",
        ),
    ]
}

#[tokio::test]
async fn http_every_protocol_has_a_heartbeat_while_a_model_loads() {
    for (path, body, beat, end) in streams() {
        let kit = impatient(&[Step::Text("Hello")]).start();
        kit.script.load_gate.shut();
        let response = kit.start(post(path, body)).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let mut body = response.into_body().into_data_stream();
        for _ in 0..3 {
            let text = next(&mut body).await.unwrap();
            assert!(text.contains(beat), "{path}: {text}");
        }
        kit.script.load_gate.open();
        let mut rest = String::new();
        while let Some(text) = next(&mut body).await {
            rest.push_str(&text);
        }
        assert!(rest.contains("Hello") && rest.contains(end), "{path}: {rest}");
    }
}

/// With a clock of its own: it jumps to the next timer whenever nothing else is to do.
#[tokio::test(start_paused = true)]
async fn http_no_stream_is_silent_for_longer_than_15_seconds_while_its_prompt_is_read() {
    for (path, body, beat, end) in streams() {
        // Reasoning first: /v1/completions has no place for it.
        let steps =
            [Step::Text("<think>"), Step::Text("hm"), Step::Wait, Step::Text("</think>"), Step::Text("so")];
        let mut setup = Setup { steps: steps.to_vec(), ..Setup::default() };
        // The clock may run far ahead of the thread that loads.
        setup.manager.load_timeout = Duration::from_secs(1 << 40);
        let kit = setup.start();
        kit.script.gate.shut();
        let response = kit.start(post(path, body)).await;
        let mut last = Instant::now();
        let mut body = response.into_body().into_data_stream();
        let mut beats = 0;
        while beats < 5 {
            let text = next(&mut body).await.unwrap();
            assert!(
                last.elapsed() <= Duration::from_millis(15_001),
                "{path}: silent for {:?}",
                last.elapsed()
            );
            last = Instant::now();
            beats += usize::from(text.contains(beat));
        }
        kit.script.gate.open();
        let mut rest = String::new();
        while let Some(text) = next(&mut body).await {
            assert!(
                last.elapsed() <= Duration::from_millis(15_001),
                "{path}: silent for {:?}",
                last.elapsed()
            );
            last = Instant::now();
            rest.push_str(&text);
        }
        assert!(rest.contains(end), "{path}: {rest}");
    }
}

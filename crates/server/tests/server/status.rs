//! What whoever watches is told: `/api/hypura/status` and `/api/hypura/experts`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use hypura_core::roofline::BoundBy;
use hypura_engine::serve::{Live, Rates, SequenceStatus};
use hypura_engine::stream::{ExpertMap, ExpertRow, ExpertState};
use serde_json::json;

use crate::kit::{Kit, Setup, until};

#[tokio::test]
async fn status_of_an_idle_server_invents_nothing() {
    let kit = Kit::new();
    let answer = kit.get("/api/hypura/status").await;
    assert_eq!(answer.status, StatusCode::OK);
    let status = answer.json();
    assert_eq!((&status["models"], &status["loading"]), (&json!([]), &json!(null)));
    let machine = &status["machine"];
    assert_eq!(machine["memory"]["budget_bytes"], 1000);
    assert_eq!(machine["memory"]["held_bytes"], 0);
    assert!(machine["processors"]["count"].as_u64().unwrap() > 0);
    assert_eq!(machine["processors"]["busy"], json!(null), "there was no look before this one");
    assert_eq!(machine["disk"], json!(null), "this machine was not measured");
}

#[tokio::test]
async fn status_tells_how_far_a_load_is() {
    let kit = Arc::new(Kit::new());
    kit.script.load_gate.shut();
    let waiting = Arc::clone(&kit);
    let task = tokio::spawn(async move {
        waiting.post("/api/generate", json!({"model": "m", "prompt": "x"})).await;
    });
    let far = || kit.server.models.load_in_progress().is_some_and(|(_, progress)| progress.read_bytes > 0);
    until("a quarter is read", far).await;
    let status = kit.get("/api/hypura/status").await.json();
    assert_eq!(status["loading"], json!({"name": "m:latest", "read_bytes": 25, "total_bytes": 100}));
    kit.script.load_gate.open();
    task.await.unwrap();
    assert!(kit.server.models.load_in_progress().is_none());
}

#[tokio::test]
async fn status_of_a_model_at_work() {
    let kit = Kit::new();
    kit.post("/api/generate", json!({"model": "m"})).await;
    {
        let mut status = kit.script.status.lock().unwrap();
        let rates = |tokens_per_s, bound| Rates {
            tokens_per_s,
            bytes_per_token: Some(2e6),
            hit_rate: Some(0.75),
            bound,
        };
        status.live = Live {
            prefill: Some(rates(100.0, Some(BoundBy::Disk))),
            decode: Some(rates(12.5, Some(BoundBy::Compute))),
        };
        let slot = |request, cached_tokens, prompt_tokens, generated_tokens| SequenceStatus {
            request,
            cached_tokens,
            prompt_tokens,
            generated_tokens,
        };
        status.slots = vec![slot(None, 9, 0, 0), slot(Some(1), 300, 1000, 0), slot(Some(2), 7, 5, 2)];
    }
    let status = kit.get("/api/hypura/status").await.json();
    let model = &status["models"][0];
    assert_eq!((&model["name"], &model["state"]), (&json!("m:latest"), &json!("generating")));
    assert_eq!(model["tiers"], json!({"GPU": 0, "RAM": 100, "NVMe": 100}));
    assert_eq!(
        model["decode"],
        json!({"tokens_per_s": 12.5, "bytes_per_token": 2e6, "hit_rate": 0.75, "bound": "compute"})
    );
    assert_eq!(model["predicted"], json!(null));
    assert_eq!(model["experts"], json!(null), "a dense model");
    let slots = model["slots"].as_array().unwrap();
    let of = |key: &str| slots.iter().map(|slot| slot[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("state"), ["prompt", "generating", "idle"], "those at work come first");
    assert_eq!(of("prompt_done_tokens"), [300, 5, 0]);
    assert_eq!(of("prompt_left_s"), [json!(7.0), json!(null), json!(null)]);
    assert_eq!(model["context"]["used_cells"], 316);
}

#[tokio::test]
async fn status_is_one_document_for_all_who_ask_at_once() {
    let kit = Kit::new();
    kit.post("/api/generate", json!({"model": "m"})).await;
    let first = kit.get("/api/hypura/status").await.json();
    let asked = kit.script.statuses.load(Ordering::SeqCst);
    for _ in 0..50 {
        assert_eq!(kit.get("/api/hypura/status").await.json(), first);
    }
    assert_eq!(kit.script.statuses.load(Ordering::SeqCst), asked, "the model was not asked again");
}

#[tokio::test]
async fn status_of_experts_is_a_digit_for_each() {
    let kit = Kit::new();
    let at = "/api/hypura/experts?model=m";
    assert_eq!(kit.get(at).await.json(), json!({"model": "m:latest", "clock": null, "layers": null}));
    kit.post("/api/generate", json!({"model": "m"})).await;
    let experts =
        vec![ExpertState::OnDisk, ExpertState::UsedNow, ExpertState::InMemory, ExpertState::UsedLately];
    *kit.script.experts.lock().unwrap() =
        Some(ExpertMap { clock: 7, layers: vec![ExpertRow { layer: 3, experts }] });
    let map = kit.get(at).await.json();
    assert_eq!(map, json!({"model": "m:latest", "clock": 7, "layers": [{"layer": 3, "experts": "0312"}]}));
    assert_eq!(kit.get("/api/hypura/experts?model=nowhere").await.status, StatusCode::NOT_FOUND);
    assert_eq!(kit.get("/api/hypura/experts").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn status_wants_the_key_as_every_answer_does() {
    let mut setup = Setup::default();
    setup.http.api_key = Some("secret".to_owned());
    let kit = setup.start();
    for path in ["/api/hypura/status", "/api/hypura/experts?model=m"] {
        assert_eq!(kit.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn status_of_plans_is_kept_for_who_asks_the_same() {
    let kit = Kit::new();
    let plan = kit.get("/api/hypura/plan?model=m").await.json();
    assert_eq!(plan, json!({"model": "m:latest", "budget_bytes": 1000}));
    kit.get("/api/hypura/plan?model=m").await;
    assert_eq!(kit.script.plans.load(Ordering::SeqCst), 1, "it is known");
    let other = kit.get("/api/hypura/plan?model=m&memory_bytes=2000000").await.json();
    assert_eq!(other["budget_bytes"], 2_000_000);
    for (query, status) in [
        ("", StatusCode::BAD_REQUEST),
        ("?model=nowhere", StatusCode::NOT_FOUND),
        ("?model=m&memory_bytes=0", StatusCode::BAD_REQUEST),
        ("?model=m&memory_bytes=lots", StatusCode::BAD_REQUEST),
        ("?model=m&hit_rate=2", StatusCode::BAD_REQUEST),
        ("?model=m&quantization=Q9", StatusCode::BAD_REQUEST),
    ] {
        let answer = kit.get(&format!("/api/hypura/plan{query}")).await;
        assert_eq!(answer.status, status, "{query}");
        assert!(!answer.error().is_empty());
    }
    assert_eq!(kit.script.plans.load(Ordering::SeqCst), 2);
}

//! llama-server's endpoints and habits.

use hypura_engine::serve::SequenceStatus;
use serde_json::json;

use crate::events;
use crate::fake::Step;
use crate::kit::Kit;

#[tokio::test]
async fn llama_tokenize_and_detokenize() {
    let kit = Kit::new();
    let body = kit.post("/tokenize", json!({"model": "m", "content": "ab"})).await.json();
    assert_eq!(body["tokens"], json!([97, 98]));
    let body =
        kit.post("/tokenize", json!({"content": "a", "add_special": true, "with_pieces": true})).await.json();
    assert_eq!(
        body["tokens"][1],
        json!({"id": 97, "piece": "a"}),
        "without a name the loaded model is meant"
    );
    let body = kit.post("/detokenize", json!({"model": "m", "tokens": [104, 105]})).await.json();
    assert_eq!(body, json!({"content": "hi"}));
    for (path, bad) in [
        ("/tokenize", json!({"model": "m", "content": 1})),
        ("/detokenize", json!({"model": "m", "tokens": "x"})),
        ("/detokenize", json!({"model": "m", "tokens": [1e30]})),
    ] {
        assert_eq!(kit.post(path, bad).await.status, 400, "{path}");
    }
    let idle = Kit::new();
    assert_eq!(idle.post("/tokenize", json!({"content": "a"})).await.status, 400, "which of three?");
}

#[tokio::test]
async fn llama_apply_template_props_and_slots() {
    let kit = Kit::new();
    let ask = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let body = kit.post("/apply-template", ask).await.json();
    assert_eq!(body, json!({"prompt": "<user>Hi<assistant>"}));
    let props = kit.get("/props?model=m").await.json();
    assert_eq!((&props["model_alias"], &props["total_slots"]), (&json!("m:latest"), &json!(2)));
    assert_eq!(props["default_generation_settings"]["n_ctx"], 4096);
    assert!(!props.to_string().contains("/secret"), "no path of this machine");
    assert_eq!(kit.get("/props?model=nobody").await.status, 404);
    let slots = kit.get("/slots").await.json();
    assert_eq!((&slots[0]["id"], &slots[0]["is_processing"]), (&json!(0), &json!(false)));
    assert_eq!(slots.as_array().unwrap().len(), 2, "as many as /props says, working or not");
    let busy = SequenceStatus { request: Some(1), cached_tokens: 7, prompt_tokens: 5, generated_tokens: 2 };
    let idle = SequenceStatus { cached_tokens: 9, ..SequenceStatus::default() };
    kit.script.status.lock().unwrap().slots = vec![SequenceStatus::default(), idle, busy];
    let slots = kit.get("/slots").await.json();
    assert_eq!((&slots[0]["is_processing"], &slots[0]["n_decoded"]), (&json!(true), &json!(2)));
    assert_eq!((&slots[1]["is_processing"], &slots[1]["n_past"]), (&json!(false), &json!(9)));
    assert_eq!(Kit::new().get("/slots").await.json(), json!([]), "asking loads nothing");
}

#[tokio::test]
async fn llama_slots_of_a_model_at_work() {
    let kit = Kit::new();
    kit.post("/api/generate", json!({"model": "m"})).await;
    let busy = SequenceStatus { request: Some(1), ..SequenceStatus::default() };
    kit.script.status.lock().unwrap().slots = vec![busy.clone(), busy];
    let slots = kit.get("/slots").await.json();
    let slots = slots.as_array().unwrap();
    assert_eq!(slots.len(), 2);
    for (at, slot) in slots.iter().enumerate() {
        assert_eq!((&slot["id"], &slot["is_processing"]), (&json!(at), &json!(true)));
        assert_eq!((&slot["model"], &slot["n_ctx"]), (&json!("m:latest"), &json!(4096)));
    }
}

#[tokio::test]
async fn llama_progress_of_the_prompt_for_those_who_ask() {
    let kit = Kit::answering(&[Step::Progress(4, 10), Step::Progress(10, 10), Step::Text("a")]);
    for (path, body) in [
        ("/v1/chat/completions", json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})),
        ("/v1/completions", json!({"model": "m", "prompt": "Hi"})),
    ] {
        let mut body = body;
        body["stream"] = json!(true);
        let silent = events(&kit.post(path, body.clone()).await);
        assert!(silent.iter().all(|(_, chunk)| chunk.get("prompt_progress").is_none()), "{path}");
        body["return_progress"] = json!(true);
        let all = events(&kit.post(path, body).await);
        let told: Vec<_> = all.iter().filter_map(|(_, chunk)| chunk.get("prompt_progress")).collect();
        assert_eq!(told.len(), 2, "{path}");
        assert_eq!(told[0], &json!({"total": 10, "cache": 2, "processed": 4, "time_ms": 4.0}), "{path}");
        assert_eq!(told[1]["processed"], 10, "{path}");
    }
}

#[tokio::test]
async fn llama_timings_come_with_answers() {
    let kit = Kit::new();
    let ask = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let timings = kit.post("/v1/chat/completions", ask.clone()).await.json()["timings"].clone();
    assert_eq!((&timings["cache_n"], &timings["predicted_n"]), (&json!(2), &json!(2)));
    assert!((timings["prompt_ms"].as_f64().unwrap() - 3.0).abs() < 1e-9);
    assert!(timings["predicted_per_second"].as_f64().unwrap() > 0.0);
    let mut ask = ask;
    ask["stream"] = json!(true);
    let all = events(&kit.post("/v1/chat/completions", ask).await);
    assert!(all.iter().any(|(_, chunk)| chunk["timings"]["predicted_n"] == 2));
}

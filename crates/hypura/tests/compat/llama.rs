//! Section 12 of the checklist: llama-server's habits.

use serde_json::json;

use crate::events;
use crate::kit::Kit;

#[tokio::test]
async fn llama_12_tokenize_and_detokenize() {
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
async fn llama_12_apply_template_props_and_slots() {
    let kit = Kit::new();
    let ask = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let body = kit.post("/apply-template", ask).await.json();
    assert_eq!(body, json!({"prompt": "<user>Hi<assistant>"}));
    let props = kit.get("/props?model=m").await.json();
    assert_eq!((&props["model_alias"], &props["total_slots"]), (&json!("m:latest"), &json!(1)));
    assert_eq!(props["default_generation_settings"]["n_ctx"], 4096);
    assert!(!props.to_string().contains("/secret"), "no path of this machine");
    assert_eq!(kit.get("/props?model=nobody").await.status, 404);
    let slots = kit.get("/slots").await.json();
    assert_eq!((&slots[0]["id"], &slots[0]["is_processing"]), (&json!(0), &json!(false)));
    assert_eq!(Kit::new().get("/slots").await.json(), json!([]), "asking loads nothing");
}

#[tokio::test]
async fn llama_12_timings_come_with_answers() {
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

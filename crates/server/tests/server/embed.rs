//! Embeddings.

use http::StatusCode;
use serde_json::json;

use crate::kit::Kit;

#[tokio::test]
async fn embed_vectors_are_scaled_in_order_and_may_be_cut() {
    let kit = Kit::new();
    *kit.script.vectors.lock().unwrap() = vec![vec![3.0, 4.0, 0.0, 0.0], vec![0.0, 0.0, 0.0, 2.0]];
    let answer = kit.post("/api/embed", json!({"model": "vec", "input": ["a", "b"]})).await.json();
    let near = |value: &serde_json::Value, wanted: f64| (value.as_f64().unwrap() - wanted).abs() < 1e-6;
    assert!(near(&answer["embeddings"][0][0], 0.6) && near(&answer["embeddings"][0][1], 0.8));
    assert!(near(&answer["embeddings"][1][3], 1.0));
    assert_eq!(answer["model"], "vec");
    assert_eq!(answer["prompt_eval_count"], 4);
    assert!(answer["total_duration"].as_u64().unwrap() > 0 && answer["load_duration"].as_u64().unwrap() > 0);
    let one = kit.post("/api/embed", json!({"model": "vec", "input": "a", "dimensions": 1})).await.json();
    assert_eq!(one["embeddings"], json!([[1.0]]));
}

#[tokio::test]
async fn embed_no_input_loads_and_other_input_is_refused() {
    let kit = Kit::new();
    for input in [json!(null), json!([]), json!("")] {
        let answer = kit.post("/api/embed", json!({"model": "vec", "input": input})).await;
        assert_eq!((answer.status, &answer.json()["embeddings"]), (StatusCode::OK, &json!([])));
    }
    assert_eq!(kit.server.models.running().len(), 1);
    for input in [json!(3), json!({"a": 1}), json!(["a", 3]), json!([["a"]])] {
        let answer = kit.post("/api/embed", json!({"model": "vec", "input": input})).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid input type"));
    }
}

#[tokio::test]
async fn embed_long_texts_are_cut_or_refused() {
    let kit = Kit::new();
    let long = json!({"model": "vec", "input": "abcdefgh", "options": {"num_ctx": 5}});
    assert_eq!(kit.post("/api/embed", long.clone()).await.status, StatusCode::OK);
    assert_eq!(kit.script.embedded.lock().unwrap()[0].len(), 5);
    let mut strict = long;
    strict["truncate"] = json!(false);
    let answer = kit.post("/api/embed", strict).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.error(), "the input length exceeds the context length");
}

#[tokio::test]
async fn embed_what_does_not_fit_even_when_cut_is_a_400() {
    let kit = Kit::new();
    *kit.script.embed_limit.lock().unwrap() = Some(0);
    let answer = kit.post("/api/embed", json!({"model": "vec", "input": "abc"})).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.error(), "input after truncation exceeds maximum context length");
}

#[tokio::test]
async fn embed_what_is_no_number_is_a_400() {
    let kit = Kit::new();
    *kit.script.vectors.lock().unwrap() = vec![vec![f32::NAN, 1.0]];
    let answer = kit.post("/api/embed", json!({"model": "vec", "input": "a"})).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn embed_the_older_endpoint_does_not_scale() {
    let kit = Kit::new();
    let answer = kit.post("/api/embeddings", json!({"model": "vec", "prompt": "a"})).await.json();
    assert_eq!(answer, json!({"embedding": [3.0, 4.0, 0.0, 0.0]}));
    let empty = kit.post("/api/embeddings", json!({"model": "vec", "prompt": ""})).await.json();
    assert_eq!(empty, json!({"embedding": []}));
}

#[tokio::test]
async fn names_embed_and_embeddings() {
    let kit = Kit::new();
    for (path, name, status, error) in [
        ("/api/embed", "", StatusCode::NOT_FOUND, "model '' not found"),
        ("/api/embed", "a b", StatusCode::BAD_REQUEST, "invalid model name"),
        ("/api/embed", "x", StatusCode::NOT_FOUND, "model \"x\" not found, try pulling it first"),
        ("/api/embeddings", "", StatusCode::BAD_REQUEST, "model is required"),
        ("/api/embeddings", "a b", StatusCode::BAD_REQUEST, "invalid model name"),
        ("/api/embeddings", "x", StatusCode::NOT_FOUND, "model \"x\" not found, try pulling it first"),
    ] {
        let answer = kit.post(path, json!({"model": name, "input": "a", "prompt": "a"})).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error), "{path}");
    }
}

//! The shapes of all answers, key by key and in their order, against files in `snapshots/`. What differs from
//! run to run (ids, times) is replaced first; everything else of the scripted engine is always the same.
//!
//! `INSTA_UPDATE=always` writes the files anew; the difference is then to be read like any other change.

use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::events;
use crate::fake::Step;
use crate::kit::{Answer, Kit};

const STEPS: [Step; 6] = [
    Step::Text("<think>"),
    Step::Text("hm"),
    Step::Text("</think>"),
    Step::Text("Hello"),
    Step::Text(" world"),
    Step::Text("<call>f {\"z\":1,\"a\":2}"),
];

/// Replaces what no two runs have in common. Numbers stay numbers, texts stay texts.
fn settled(mut value: Value) -> Value {
    settle(&mut value);
    value
}

fn settle(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), &*value) {
                    ("created_at" | "modified_at" | "expires_at", Value::String(_)) => {
                        *value = json!("[time]")
                    }
                    ("created" | "created_at" | "completed_at", Value::Number(_)) => *value = json!(1),
                    ("total_duration" | "load_duration" | "load_seconds", Value::Number(_)) => {
                        *value = json!(2)
                    }
                    ("id" | "item_id" | "request_id", Value::String(id)) => {
                        // The prefix is part of the shape.
                        let prefix = id.split(['_', '-']).next().unwrap_or_default();
                        let joint = if id.contains('_') { '_' } else { '-' };
                        *value = json!(format!("{prefix}{joint}[id]"));
                    }
                    _ => settle(value),
                }
            }
        }
        _ => {}
    }
}

fn whole(answer: &Answer) -> Value {
    json!({"status": answer.status.as_u16(), "body": settled(answer.json())})
}

fn lines(answer: &Answer) -> Value {
    settled(answer.lines().into())
}

/// Name and data of each event.
fn stream(answer: &Answer) -> Value {
    let all = events(answer).into_iter();
    settled(all.map(|(event, data)| json!({"event": event, "data": data})).collect())
}

fn conversation(more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn golden_native_answers() {
    let kit = Kit::answering(&STEPS);
    let ask = json!({"model": "m", "prompt": "Hi"});
    let mut one = ask.clone();
    one["stream"] = json!(false);
    one["logprobs"] = json!(true);
    one["top_logprobs"] = json!(1);
    assert_json_snapshot!("generate_stream", lines(&kit.post("/api/generate", ask).await));
    assert_json_snapshot!("generate_whole", whole(&kit.post("/api/generate", one).await));
    assert_json_snapshot!("generate_load", whole(&kit.post("/api/generate", json!({"model": "m"})).await));
    let unload = json!({"model": "m", "keep_alive": 0, "prompt": ""});
    assert_json_snapshot!("generate_unload", whole(&kit.post("/api/generate", unload).await));
    assert_json_snapshot!("chat_stream", lines(&kit.post("/api/chat", conversation(json!({}))).await));
    let one = conversation(json!({"stream": false}));
    assert_json_snapshot!("chat_whole", whole(&kit.post("/api/chat", one).await));
    let embed = json!({"model": "vec", "input": ["a", "b"]});
    assert_json_snapshot!("embed", whole(&kit.post("/api/embed", embed).await));
    let old = json!({"model": "vec", "prompt": "a"});
    assert_json_snapshot!("embeddings", whole(&kit.post("/api/embeddings", old).await));
    kit.script.set(&[Step::Text("so far"), Step::Fail("disk gone")]);
    assert_json_snapshot!("chat_failed", lines(&kit.post("/api/chat", conversation(json!({}))).await));
}

#[tokio::test]
async fn golden_native_lists() {
    let kit = Kit::new();
    kit.post("/api/generate", json!({"model": "m"})).await;
    assert_json_snapshot!("tags", whole(&kit.get("/api/tags").await));
    assert_json_snapshot!("ps", whole(&kit.get("/api/ps").await));
    assert_json_snapshot!("show", whole(&kit.post("/api/show", json!({"model": "m"})).await));
    assert_json_snapshot!("pull", lines(&kit.post("/api/pull", json!({"model": "m"})).await));
    assert_json_snapshot!("native_not_found", whole(&kit.post("/api/show", json!({"model": "x"})).await));
    let version = kit.get("/api/version").await.json();
    assert_eq!(version.as_object().unwrap().keys().collect::<Vec<_>>(), ["version", "hypura"]);
}

#[tokio::test]
async fn golden_openai() {
    let kit = Kit::answering(&STEPS);
    let one = conversation(json!({"logprobs": true, "top_logprobs": 1}));
    assert_json_snapshot!("openai_chat_whole", whole(&kit.post("/v1/chat/completions", one).await));
    let ask = conversation(json!({"stream": true, "stream_options": {"include_usage": true}}));
    assert_json_snapshot!("openai_chat_stream", stream(&kit.post("/v1/chat/completions", ask).await));
    assert_json_snapshot!("openai_models", whole(&kit.get("/v1/models").await));
    let embed = json!({"model": "vec", "input": "a"});
    assert_json_snapshot!("openai_embeddings", whole(&kit.post("/v1/embeddings", embed).await));
    let missing = kit.post("/v1/chat/completions", conversation(json!({"model": "x"}))).await;
    assert_json_snapshot!("openai_not_found", whole(&missing));
    kit.script.set(&[Step::Progress(3, 9), Step::Text("Hello"), Step::Stop("x")]);
    let text = json!({"model": "m", "prompt": "Hi", "logprobs": 1});
    assert_json_snapshot!("openai_completion_whole", whole(&kit.post("/v1/completions", text.clone()).await));
    let mut ask = text;
    ask["stream"] = json!(true);
    ask["return_progress"] = json!(true);
    assert_json_snapshot!("openai_completion_stream", stream(&kit.post("/v1/completions", ask).await));
    kit.script.set(&[Step::Text("so far"), Step::Fail("disk gone")]);
    let ask = conversation(json!({"stream": true}));
    assert_json_snapshot!("openai_chat_failed", stream(&kit.post("/v1/chat/completions", ask).await));
}

#[tokio::test]
async fn golden_responses() {
    let kit = Kit::answering(&STEPS);
    let ask = json!({"model": "m", "input": "Hi"});
    let mut streamed = ask.clone();
    streamed["stream"] = json!(true);
    assert_json_snapshot!("responses_whole", whole(&kit.post("/v1/responses", ask).await));
    assert_json_snapshot!("responses_stream", stream(&kit.post("/v1/responses", streamed.clone()).await));
    kit.script.set(&[Step::Text("so far"), Step::Fail("disk gone")]);
    assert_json_snapshot!("responses_failed", stream(&kit.post("/v1/responses", streamed).await));
}

#[tokio::test]
async fn golden_anthropic() {
    let kit = Kit::answering(&STEPS);
    let ask = conversation(json!({"max_tokens": 9}));
    let mut streamed = ask.clone();
    streamed["stream"] = json!(true);
    assert_json_snapshot!("anthropic_whole", whole(&kit.post("/v1/messages", ask.clone()).await));
    assert_json_snapshot!("anthropic_stream", stream(&kit.post("/v1/messages", streamed.clone()).await));
    assert_json_snapshot!("anthropic_count", whole(&kit.post("/v1/messages/count_tokens", ask).await));
    let missing = conversation(json!({"max_tokens": 9, "model": "x"}));
    assert_json_snapshot!("anthropic_not_found", whole(&kit.post("/v1/messages", missing).await));
    kit.script.set(&[Step::Text("so far"), Step::Fail("disk gone")]);
    assert_json_snapshot!("anthropic_failed", stream(&kit.post("/v1/messages", streamed).await));
}

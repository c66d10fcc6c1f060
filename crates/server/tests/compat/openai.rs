//! OpenAI's `/v1/chat/completions`, `completions`, `embeddings` and `models`.

use serde_json::{Value, json};

use crate::events;
use crate::fake::Step;
use crate::kit::{Kit, Setup};

fn hello(more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn chat_a_whole_answer() {
    let kit = Kit::answering(&[
        Step::Text("<think>"),
        Step::Text("hm"),
        Step::Text("</think>"),
        Step::Text("Hello"),
    ]);
    let answer = kit.post("/v1/chat/completions", hello(json!({}))).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("m")));
    assert_eq!(body["system_fingerprint"], "fp_ollama");
    assert!(body["created"].as_u64().unwrap() > 1_700_000_000);
    let choice = &body["choices"][0];
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("stop")));
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], "Hello");
    assert_eq!(choice["message"]["reasoning"], "hm");
    assert_eq!(choice["message"]["reasoning_content"], "hm");
    assert_eq!(choice["logprobs"], Value::Null);
    let usage = &body["usage"];
    let sum = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"].as_u64(), Some(sum));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 2);
    let seen = kit.script.last();
    assert!((seen.sampling.temperature - 1.0).abs() < f32::EPSILON, "this protocol's default");
}

#[tokio::test]
async fn chat_a_stream() {
    let kit = Kit::answering(&[
        Step::Text("<think>"),
        Step::Text("hm"),
        Step::Text("</think>"),
        Step::Text("a"),
        Step::Text("<call>f {\"z\":1,\"a\":2}"),
    ]);
    let ask = hello(json!({"stream": true, "stream_options": {"include_usage": true}, "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}));
    let answer = kit.post("/v1/chat/completions", ask).await;
    let all: Vec<Value> = events(&answer).into_iter().map(|(_, value)| value).collect();
    let delta = |at: usize| &all[at]["choices"][0]["delta"];
    assert_eq!(delta(0), &json!({"role": "assistant", "content": ""}));
    assert_eq!(delta(1), &json!({"reasoning": "hm", "reasoning_content": "hm"}));
    assert_eq!(delta(2), &json!({"content": "a"}));
    let call = &delta(3)["tool_calls"][0];
    assert_eq!((&call["index"], &call["type"]), (&json!(0), &json!("function")));
    assert_eq!(
        call["function"],
        json!({"name": "f", "arguments": "{\"z\":1,\"a\":2}"}),
        "a string, order kept"
    );
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    assert_eq!(delta(4), &json!({}));
    assert_eq!(all[4]["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(all[5]["choices"], json!([]));
    assert!(all[5]["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    assert_eq!(all[6], "[DONE]");
    assert_eq!(all.len(), 7);
    for chunk in &all[..6] {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!((&chunk["id"], &chunk["created"]), (&all[0]["id"], &all[0]["created"]), "one for all");
    }
    assert!(all[..4].iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
}

#[tokio::test]
async fn chat_length_and_logprobs() {
    let kit = Kit::answering(&[Step::Text("é"), Step::Length]);
    let body =
        kit.post("/v1/chat/completions", hello(json!({"logprobs": true, "top_logprobs": 2}))).await.json();
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    let token = &choice["logprobs"]["content"][0];
    assert_eq!((&token["token"], &token["bytes"]), (&json!("é"), &json!([195, 169])));
    assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
    let answer = kit.post("/v1/chat/completions", hello(json!({"logprobs": true, "stream": true}))).await;
    assert!(
        events(&answer)
            .iter()
            .any(|(_, chunk)| chunk["choices"][0]["logprobs"]["content"][0]["token"] == "é")
    );
}

#[tokio::test]
async fn chat_tools_formats_and_efforts_reach_the_template() {
    let kit = Kit::new();
    let ask = hello(json!({
        "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}],
        "tool_choice": {"type": "function", "function": {"name": "g"}}, "parallel_tool_calls": false,
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        "reasoning_effort": "low", "stop": "x", "seed": 7, "max_completion_tokens": 3}));
    assert_eq!(kit.post("/v1/chat/completions", ask).await.status, 200);
    let chats = kit.script.chats.lock().unwrap();
    let chat = chats.last().unwrap();
    assert_eq!(chat.tools.len(), 1);
    assert_eq!(chat.tool_choice, hypura_server::job::ToolChoice::Required);
    assert!(!chat.parallel_tool_calls);
    assert_eq!(chat.think, Some(hypura_server::job::Think::Level("low".to_owned())));
    let seen = kit.script.last();
    assert!(seen.grammar.unwrap().contains("object"));
    assert_eq!((seen.sampling.seed, seen.max_tokens), (7, Some(3)));
    assert!(seen.stops.contains(&"x".to_owned()));
}

#[tokio::test]
async fn chat_errors_have_this_protocols_shape() {
    let kit = Kit::new();
    for (body, status, kind) in [
        (json!({}), 400, "invalid_request_error"),
        (json!({"model": "m", "messages": []}), 400, "invalid_request_error"),
        (hello(json!({"model": "nobody"})), 404, "not_found_error"),
        (hello(json!({"model": "vec"})), 400, "invalid_request_error"),
        (
            hello(json!({"model": "plain", "tools": [{"type": "function", "function": {"name": "f"}}]})),
            400,
            "invalid_request_error",
        ),
        (
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x/y.png"}]}]}),
            400,
            "invalid_request_error",
        ),
    ] {
        let answer = kit.post("/v1/chat/completions", body.clone()).await;
        assert_eq!(answer.status, status, "{body}");
        let error = &answer.json()["error"];
        assert_eq!(error["type"], kind);
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert_eq!((&error["param"], &error["code"]), (&Value::Null, &Value::Null));
    }
    let answer = kit.post("/v1/chat/completions", json!({"model": "m", "messages": []})).await;
    assert_eq!(answer.json()["error"]["message"], "[] is too short - 'messages'");
    assert_eq!(kit.get("/v1/chat/completions").await.status, 405);
    assert_eq!(kit.get("/v1/nothing").await.json()["error"]["type"], "not_found_error");
}

#[tokio::test]
async fn chat_a_failure_in_the_middle_is_told_and_ends_the_stream() {
    let kit = Kit::answering(&[Step::Text("a"), Step::Fail("disk gone")]);
    let answer = kit.post("/v1/chat/completions", hello(json!({"stream": true}))).await;
    assert_eq!(answer.status, 200);
    let all = events(&answer);
    let last = &all.last().unwrap().1;
    assert_eq!(
        (&last["error"]["message"], &last["error"]["type"]),
        (&json!("disk gone"), &json!("api_error"))
    );
    let answer = kit.post("/v1/chat/completions", hello(json!({}))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["type"]), (500, &json!("api_error")));
}

#[tokio::test]
async fn http_a_slow_answer_sends_comments() {
    let mut setup = Setup { steps: vec![Step::Wait, Step::Text("late")], ..Setup::default() };
    setup.http.heartbeat = std::time::Duration::from_millis(20);
    let kit = setup.start();
    kit.script.gate.shut();
    let response = kit.start(crate::kit::post("/v1/chat/completions", hello(json!({"stream": true})))).await;
    assert_eq!(response.status(), 200, "headers before the first token");
    let gate = std::sync::Arc::clone(&kit.script);
    let opener = tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        gate.gate.open();
    });
    let answer = crate::kit::read(response).await;
    opener.await.unwrap();
    assert!(answer.text().contains("\n: ping\n\n"), "{}", answer.text());
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn completions_whole_and_streamed() {
    let kit = Kit::new();
    let ask = json!({"model": "m", "prompt": "P", "suffix": "S", "logprobs": 1});
    let body = kit.post("/v1/completions", ask.clone()).await.json();
    assert!(body["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(body["object"], "text_completion");
    let choice = &body["choices"][0];
    assert_eq!(
        (&choice["text"], &choice["index"], &choice["finish_reason"]),
        (&json!("Hello world"), &json!(0), &json!("stop"))
    );
    assert_eq!(choice["logprobs"]["tokens"], json!(["Hello", " world"]));
    assert_eq!(choice["logprobs"]["text_offset"], json!([0, 5]));
    assert!(kit.script.last().text.contains("<pre>P<suf>S<mid>"), "the gap is filled");
    let mut ask = ask;
    ask["stream"] = json!(true);
    ask["stream_options"] = json!({"include_usage": true});
    let all: Vec<Value> =
        events(&kit.post("/v1/completions", ask).await).into_iter().map(|event| event.1).collect();
    let text: String = all.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "Hello world");
    assert_eq!(all[2]["choices"][0]["finish_reason"], "stop");
    assert!(all[3]["usage"]["total_tokens"].as_u64().unwrap() > 0);
    assert_eq!(all[4], "[DONE]");
    assert_eq!(kit.post("/v1/completions", json!({"model": "m", "prompt": [1]})).await.status, 400);
}

#[tokio::test]
async fn embeddings_floats_and_base64() {
    let kit = Kit::new();
    let body = kit.post("/v1/embeddings", json!({"model": "vec", "input": ["a", ""]})).await.json();
    assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!("vec")));
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    let first = &body["data"][0];
    assert_eq!((&first["object"], &first["index"]), (&json!("embedding"), &json!(0)));
    assert!((first["embedding"][0].as_f64().unwrap() - 0.6).abs() < 1e-6, "scaled to length 1");
    assert_eq!(body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]);
    let ask = json!({"model": "vec", "input": "a", "encoding_format": "base64", "dimensions": 2});
    let text =
        kit.post("/v1/embeddings", ask).await.json()["data"][0]["embedding"].as_str().unwrap().to_owned();
    assert_eq!(text.len(), 12, "two floats are eight bytes");
    for bad in [
        json!({"model": "vec", "input": null}),
        json!({"model": "vec", "input": []}),
        json!({"model": "vec", "input": [[1]]}),
        json!({"model": "vec", "input": "a", "encoding_format": "hex"}),
        json!({"input": "a"}),
    ] {
        let answer = kit.post("/v1/embeddings", bad.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["type"]),
            (400, &json!("invalid_request_error")),
            "{bad}"
        );
    }
    let answer = kit.post("/v1/embeddings", json!({"model": "nobody", "input": "a"})).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn models_list_and_one() {
    let kit = Kit::new();
    let body = kit.get("/v1/models").await.json();
    assert_eq!(body["object"], "list");
    let first = &body["data"][0];
    assert_eq!(
        (&first["id"], &first["object"], &first["owned_by"]),
        (&json!("m:latest"), &json!("model"), &json!("library"))
    );
    assert_eq!(first["created"], 1_700_000_000);
    assert_eq!(first["meta"]["n_ctx_train"], 4096);
    for path in ["/v1/models/m", "/v1/models/m:latest", "/v1/models/m%3Alatest"] {
        let answer = kit.get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["object"]), (200, &json!("model")), "{path}");
    }
    let answer = kit.get("/v1/models/who/nobody:7b").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["type"]), (404, &json!("not_found_error")));
}

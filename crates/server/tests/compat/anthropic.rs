//! Anthropic's `/v1/messages` and `count_tokens`.

use serde_json::{Value, json};

use crate::events;
use crate::fake::Step;
use crate::kit::{Kit, Setup};

fn hello(more: Value) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

const THINKS_AND_CALLS: [Step; 6] = [
    Step::Text("<think>"),
    Step::Text("hm"),
    Step::Text("</think>"),
    Step::Text("a"),
    Step::Text("b"),
    Step::Text("<call>f {\"z\":1,\"a\":2}"),
];

#[tokio::test]
async fn messages_a_whole_answer() {
    let kit = Kit::answering(&THINKS_AND_CALLS);
    let body = kit.post("/v1/messages", hello(json!({}))).await.json();
    let id = body["id"].as_str().unwrap();
    assert!(id.starts_with("msg_") && id.len() == 28, "{id}");
    assert_eq!(
        (&body["type"], &body["role"], &body["model"]),
        (&json!("message"), &json!("assistant"), &json!("m"))
    );
    assert_eq!(body["content"][0], json!({"type": "thinking", "thinking": "hm", "signature": ""}));
    assert_eq!(body["content"][1], json!({"type": "text", "text": "ab"}));
    assert_eq!(body["content"][2]["type"], "tool_use");
    assert_eq!(
        (&body["content"][2]["name"], body["content"][2]["input"].to_string()),
        (&json!("f"), r#"{"z":1,"a":2}"#.to_owned())
    );
    assert_eq!((&body["stop_reason"], &body["stop_sequence"]), (&json!("tool_use"), &Value::Null));
    assert!(
        body["usage"]["input_tokens"].as_u64().unwrap() > 0
            && body["usage"]["output_tokens"].as_u64().unwrap() > 0
    );
    kit.script.set(&[Step::Text("x"), Step::Length]);
    assert_eq!(kit.post("/v1/messages", hello(json!({}))).await.json()["stop_reason"], "max_tokens");
    kit.script.set(&[Step::Text("x")]);
    assert_eq!(kit.post("/v1/messages", hello(json!({}))).await.json()["stop_reason"], "end_turn");
}

#[tokio::test]
async fn messages_a_stream_of_blocks() {
    let kit = Kit::answering(&THINKS_AND_CALLS);
    let all = events(&kit.post("/v1/messages", hello(json!({"stream": true}))).await);
    let names: Vec<&str> = all.iter().map(|event| event.0.as_str()).collect();
    assert_eq!(
        names,
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    assert!(all.iter().all(|(name, value)| value["type"] == name.as_str()));
    assert!(all[0].1["message"]["usage"]["input_tokens"].as_u64().unwrap() > 0);
    assert_eq!(all[2].1["delta"], json!({"type": "thinking_delta", "thinking": "hm"}));
    assert_eq!(
        (&all[4].1["index"], &all[6].1["delta"]),
        (&json!(1), &json!({"type": "text_delta", "text": "b"}))
    );
    assert_eq!(all[8].1["content_block"]["input"], json!({}));
    assert_eq!(all[9].1["delta"], json!({"type": "input_json_delta", "partial_json": "{\"z\":1,\"a\":2}"}));
    assert_eq!(all[11].1["delta"]["stop_reason"], "tool_use");
    assert!(all[11].1["usage"]["output_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn messages_thinking_on_a_plain_model_is_dropped_quietly() {
    let kit = Kit::new();
    let ask = hello(json!({"model": "plain", "thinking": {"type": "enabled", "budget_tokens": 2000}}));
    assert_eq!(kit.post("/v1/messages", ask).await.status, 200);
}

#[tokio::test]
async fn messages_results_come_before_the_text_of_their_turn() {
    let kit = Kit::new();
    let ask = hello(json!({"messages": [
        {"role": "user", "content": "w?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "u", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "text", "text": "go on"}, {"type": "tool_result", "tool_use_id": "u", "content": "rain"}]}],
        "system": [{"type": "text", "text": "S"}]}));
    assert_eq!(kit.post("/v1/messages", ask).await.status, 200);
    assert_eq!(kit.script.last().text, "<system>S<user>w?<assistant><tool>rain<user>go on<assistant>");
}

#[tokio::test]
async fn messages_only_a_stop_string_of_the_request_is_a_stop_sequence() {
    let kit = Kit::answering(&[Step::Text("x"), Step::Stop("<end>")]);
    let reason = |answer: &Value| (answer["stop_reason"].clone(), answer["stop_sequence"].clone());
    // `<end>` is a stop string of the template.
    let ask = hello(json!({"stop_sequences": ["END"]}));
    let of_template = kit.post("/v1/messages", ask.clone()).await.json();
    assert_eq!(reason(&of_template), (json!("end_turn"), Value::Null));
    kit.script.set(&[Step::Text("x"), Step::Stop("END")]);
    let of_request = kit.post("/v1/messages", ask.clone()).await.json();
    assert_eq!(reason(&of_request), (json!("stop_sequence"), json!("END")));
    let mut ask = ask;
    ask["stream"] = json!(true);
    let all = events(&kit.post("/v1/messages", ask).await);
    let delta = &all.iter().find(|(name, _)| name == "message_delta").unwrap().1["delta"];
    assert_eq!(reason(delta), (json!("stop_sequence"), json!("END")));
}

#[tokio::test]
async fn messages_errors_have_this_protocols_shape() {
    let kit = Kit::new();
    for (body, status, kind) in [
        (json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}), 400, "invalid_request_error"),
        (hello(json!({"model": ""})), 400, "invalid_request_error"),
        (hello(json!({"messages": []})), 400, "invalid_request_error"),
        (hello(json!({"model": "nobody"})), 404, "not_found_error"),
    ] {
        let answer = kit.post("/v1/messages", body.clone()).await;
        let error = answer.json();
        assert_eq!((answer.status.as_u16(), &error["error"]["type"]), (status, &json!(kind)), "{body}");
        assert_eq!(error["type"], "error");
        assert!(error["request_id"].as_str().unwrap().starts_with("req_"));
    }
    kit.script.set(&[Step::Text("a"), Step::Fail("disk gone")]);
    let all = events(&kit.post("/v1/messages", hello(json!({"stream": true}))).await);
    let (name, last) = all.last().unwrap();
    assert_eq!((name.as_str(), &last["error"]["message"]), ("error", &json!("disk gone")));
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (529, "overloaded_error"),
    ] {
        let status = http::StatusCode::from_u16(status).unwrap();
        *kit.script.fail_submit.lock().unwrap() = Some(hypura_server::Failure::new(status, "no"));
        let answer = kit.post("/v1/messages", hello(json!({}))).await;
        assert_eq!((answer.status, &answer.json()["error"]["type"]), (status, &json!(kind)));
    }
    assert_eq!(kit.get("/v1/messages").await.json()["type"], "error");
}

#[tokio::test]
async fn messages_the_key_may_come_as_x_api_key() {
    let mut setup = Setup::default();
    setup.http.api_key = Some("k".to_owned());
    let kit = setup.start();
    let answer = kit.post("/v1/messages", hello(json!({}))).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["type"]),
        (401, &json!("authentication_error"))
    );
    let mut ask = crate::kit::post("/v1/messages", hello(json!({})));
    ask.headers_mut().insert("x-api-key", "k".parse().unwrap());
    assert_eq!(kit.send(ask).await.status, 200);
}

#[tokio::test]
async fn messages_tokens_are_counted_without_an_answer() {
    let kit = Kit::new();
    let ask = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let body = kit.post("/v1/messages/count_tokens", ask).await.json();
    assert_eq!(body, json!({"input_tokens": 1 + "<user>Hi<assistant>".len()}));
    assert!(kit.script.requests.lock().unwrap().is_empty());
    let answer = kit
        .post(
            "/v1/messages/count_tokens",
            json!({"model": "nobody", "messages": [{"role": "user", "content": "x"}]}),
        )
        .await;
    assert_eq!(answer.status, 404);
}

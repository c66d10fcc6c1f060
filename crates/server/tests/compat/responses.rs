//! OpenAI's `/v1/responses`.

use serde_json::{Value, json};

use crate::events;
use crate::fake::Step;
use crate::kit::Kit;

#[tokio::test]
async fn responses_a_whole_answer() {
    let kit = Kit::answering(&[
        Step::Text("<think>"),
        Step::Text("hm"),
        Step::Text("</think>"),
        Step::Text("Hello"),
        Step::Text("<call>f {\"z\":1,\"a\":2}"),
    ]);
    let ask = json!({"model": "m", "input": "Hi", "instructions": "be brief", "max_output_tokens": 9,
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]});
    let body = kit.post("/v1/responses", ask).await.json();
    assert!(body["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!(
        (&body["object"], &body["status"], &body["model"]),
        (&json!("response"), &json!("completed"), &json!("m"))
    );
    assert_eq!(body["output"][0]["summary"], json!([{"type": "summary_text", "text": "hm"}]));
    assert_eq!(body["output"][0]["encrypted_content"], "hm");
    let part = json!({"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []});
    assert_eq!(
        (&body["output"][1]["role"], &body["output"][1]["content"]),
        (&json!("assistant"), &json!([part]))
    );
    let call = &body["output"][2];
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("f")));
    assert_eq!(call["arguments"], "{\"z\":1,\"a\":2}");
    assert!(call["call_id"].as_str().unwrap().starts_with("call_"));
    let usage = &body["usage"];
    assert!(usage["input_tokens"].as_u64().unwrap() > 0 && usage["output_tokens"].as_u64().unwrap() > 0);
    assert_eq!(usage["input_tokens_details"]["cached_tokens"], 2);
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 2, "a token a letter of `hm`");
    assert_eq!((&body["instructions"], &body["max_output_tokens"]), (&json!("be brief"), &json!(9)));
    for explicit in ["error", "incomplete_details", "previous_response_id", "user"] {
        assert!(body.as_object().unwrap().contains_key(explicit) && body[explicit].is_null(), "{explicit}");
    }
    assert!(kit.script.last().text.starts_with("<system>be brief<user>Hi"));
    kit.script.set(&[Step::Text("x"), Step::Length]);
    let body = kit.post("/v1/responses", json!({"model": "m", "input": "Hi"})).await.json();
    assert_eq!(
        (&body["status"], &body["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
}

#[tokio::test]
async fn responses_a_stream_of_numbered_events() {
    let kit = Kit::answering(&[
        Step::Text("<think>"),
        Step::Text("hm"),
        Step::Text("</think>"),
        Step::Text("a"),
        Step::Text("b"),
        Step::Text("<call>f {}"),
    ]);
    let all = events(&kit.post("/v1/responses", json!({"model": "m", "input": "Hi", "stream": true})).await);
    let names: Vec<&str> = all.iter().map(|event| event.0.trim_start_matches("response.")).collect();
    assert_eq!(
        names,
        [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed"
        ]
    );
    for (at, (name, value)) in all.iter().enumerate() {
        assert_eq!((&value["type"], &value["sequence_number"]), (&json!(name), &json!(at)));
    }
    assert_eq!(all[12].1["text"], "ab");
    assert_eq!((&all[10].1["output_index"], &all[10].1["item_id"]), (&json!(1), &all[8].1["item"]["id"]));
    let last = &all[19].1["response"];
    assert_eq!((&last["status"], last["output"].as_array().unwrap().len()), (&json!("completed"), 3));
    assert_eq!(last["id"], all[0].1["response"]["id"]);
}

#[tokio::test]
async fn responses_errors() {
    let kit = Kit::new();
    for (body, status) in [
        (json!({"model": "m"}), 400),
        (json!({"model": "nobody", "input": "x"}), 404),
        (json!({"model": "m", "input": "x", "previous_response_id": "r"}), 400),
        (json!({"model": "m", "input": [{"type": "item_reference", "id": "i"}]}), 404),
    ] {
        let answer = kit.post("/v1/responses", body.clone()).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.json()["error"]["message"].is_string());
    }
    kit.script.set(&[Step::Text("a"), Step::Fail("disk gone")]);
    let all = events(&kit.post("/v1/responses", json!({"model": "m", "input": "x", "stream": true})).await);
    let (name, last): &(String, Value) = all.last().unwrap();
    assert_eq!(
        (name.as_str(), &last["response"]["error"]["message"]),
        ("response.failed", &json!("disk gone"))
    );
}

#[tokio::test]
async fn responses_a_compressed_body() {
    let kit = Kit::new();
    let plain = json!({"model": "m", "input": "Hi"}).to_string();
    // A zstd frame by hand: magic, one segment of so many bytes, one raw last block.
    let size = u8::try_from(plain.len()).unwrap();
    let block = u32::from(size) << 3 | 1;
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, size];
    bytes.extend_from_slice(&block.to_le_bytes()[..3]);
    bytes.extend_from_slice(plain.as_bytes());
    let mut ask = crate::kit::request(http::Method::POST, "/v1/responses", bytes);
    ask.headers_mut().insert("content-encoding", "zstd".parse().unwrap());
    assert_eq!(kit.send(ask).await.json()["status"], "completed");
}

#[tokio::test]
async fn a_request_may_refer_to_recent_answers() {
    let kit = Kit::answering(&[Step::Text("Hello")]);
    let first = kit.post("/v1/responses", json!({"model": "m", "input": "Hi"})).await.json();
    let message = first["output"][0]["id"].as_str().unwrap();
    let next = json!({"model": "m", "input": "And?", "previous_response_id": first["id"]});
    let second = kit.post("/v1/responses", next).await.json();
    assert_eq!(second["previous_response_id"], first["id"]);
    assert!(
        kit.script.last().text.starts_with("<user>Hi<assistant>Hello<user>And?"),
        "{}",
        kit.script.last().text
    );
    // A chain goes on, and streams are remembered as well.
    let third = json!({"model": "m", "input": "So?", "previous_response_id": second["id"], "stream": true});
    let all = events(&kit.post("/v1/responses", third).await);
    assert!(kit.script.last().text.contains("<user>Hi<assistant>Hello<user>And?<assistant>Hello<user>So?"));
    let id = all.last().unwrap().1["response"]["id"].clone();
    let fourth = json!({"model": "m", "input": "x", "previous_response_id": id});
    assert_eq!(kit.post("/v1/responses", fourth).await.status, 200);
    // Vercel's SDK sends references to the items of answers.
    let items = json!([{"role": "user", "content": "Hi"}, {"type": "item_reference", "id": message},
        {"role": "user", "content": "Again"}]);
    let answer = kit.post("/v1/responses", json!({"model": "m", "input": items})).await;
    assert_eq!(answer.status, 200);
    assert!(kit.script.last().text.contains("<user>Hi<assistant>Hello<user>Again"));
    // What is not to be stored is forgotten.
    let unstored = json!({"model": "m", "input": "Hi", "store": false});
    let unstored = kit.post("/v1/responses", unstored).await.json();
    assert_eq!(unstored["store"], false);
    let next = json!({"model": "m", "input": "And?", "previous_response_id": unstored["id"]});
    assert_eq!(kit.post("/v1/responses", next).await.status, 400);
}

#[tokio::test]
async fn calls_of_namespaces_and_custom_tools_come_back_in_the_clients_words() {
    let tools = json!([
        {"type": "namespace", "name": "mcp", "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}]},
        {"type": "custom", "name": "patch"}
    ]);
    let ask = |stream: bool| json!({"model": "m", "input": "Hi", "tools": tools, "stream": stream});
    let kit = Kit::answering(&[
        Step::Text("<call>mcp.look {\"a\":1}"),
        Step::Text("<call>patch {\"input\":\"*** Begin\"}"),
    ]);
    let output = kit.post("/v1/responses", ask(false)).await.json()["output"].clone();
    let output: Vec<&Value> = output.as_array().unwrap().iter().collect();
    let call = output.iter().find(|item| item["type"] == "function_call").unwrap();
    assert_eq!(
        (&call["name"], &call["namespace"], &call["arguments"]),
        (&json!("look"), &json!("mcp"), &json!("{\"a\":1}"))
    );
    let call = output.iter().find(|item| item["type"] == "custom_tool_call").unwrap();
    assert_eq!((&call["name"], &call["input"]), (&json!("patch"), &json!("*** Begin")));
    let all = events(&kit.post("/v1/responses", ask(true)).await);
    let done: Vec<&Value> = all
        .iter()
        .filter(|(name, _)| name == "response.output_item.done")
        .map(|(_, value)| &value["item"])
        .collect();
    assert_eq!((&done[0]["name"], &done[0]["namespace"]), (&json!("look"), &json!("mcp")));
    assert_eq!((&done[1]["type"], &done[1]["input"]), (&json!("custom_tool_call"), &json!("*** Begin")));
    assert!(
        all.iter()
            .any(|(name, value)| name == "response.custom_tool_call_input.done"
                && value["input"] == "*** Begin")
    );
}

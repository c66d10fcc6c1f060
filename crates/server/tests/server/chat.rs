//! Conversations.

use http::StatusCode;
use serde_json::{Value, json};

use crate::fake::Step;
use crate::fake_catalog::set;
use crate::kit::{Answer, Kit, Setup};
use hypura_store::{Message, ModelSettings};

async fn ask(kit: &Kit, more: Value) -> Answer {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": false});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    kit.post("/api/chat", body).await
}

#[tokio::test]
async fn chat_messages_of_every_shape() {
    let kit = Kit::new();
    let messages = json!([
        {"role": "Developer", "content": "rules"},
        {"role": "USER", "content": "hi"},
        {"role": "assistant", "content": null, "thinking": "hm", "tool_calls": [
            {"function": {"name": "f", "arguments": {"z": 1, "a": 2}}},
            {"id": "x", "function": {"index": 1, "name": "g", "arguments": "{\"b\":3}"}},
        ]},
        {"role": "tool", "content": "42", "tool_name": "f", "tool_call_id": "x"},
    ]);
    assert_eq!(ask(&kit, json!({"messages": messages})).await.status, StatusCode::OK);
    let chats = kit.script.chats.lock().unwrap();
    let seen = &chats.last().unwrap().messages;
    assert_eq!((&seen[0]["role"], &seen[1]["role"]), (&json!("system"), &json!("user")));
    assert_eq!(seen[2]["content"], "");
    assert_eq!(seen[2]["reasoning_content"], "hm");
    assert_eq!(seen[2]["tool_calls"][0]["function"]["arguments"], "{\"z\":1,\"a\":2}");
    assert_eq!(seen[2]["tool_calls"][1]["id"], "x");
    assert_eq!(seen[2]["tool_calls"][1]["function"]["arguments"], "{\"b\":3}");
    assert_eq!((&seen[3]["name"], &seen[3]["tool_call_id"]), (&json!("f"), &json!("x")));
}

#[tokio::test]
async fn chat_bad_messages_are_refused() {
    let kit = Kit::new();
    for message in [
        json!({"role": "boss", "content": "x"}),
        json!({"role": "user", "content": 3}),
        json!({"role": "user", "content": "x", "images": ["%%%"]}),
        json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "no"}}]}),
        json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}),
    ] {
        assert_eq!(ask(&kit, json!({"messages": [message]})).await.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn chat_tools_reach_the_template_in_their_order() {
    let kit = Kit::new();
    let tool = json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": {
        "type": "object", "required": ["z"],
        "properties": {"z": {"type": ["string", "null"]}, "a": {"anyOf": [{"type": "integer"}], "enum": [1]}}}}});
    ask(&kit, json!({"tools": [tool]})).await;
    let seen = kit.script.chats.lock().unwrap().last().unwrap().tools.clone();
    assert_eq!(seen[0].to_string(), tool.to_string());
    let answer = ask(&kit, json!({"model": "plain", "tools": [tool]})).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.error(), "registry.ollama.ai/library/plain:latest does not support tools");
    let vec = ask(&kit, json!({"model": "vec"})).await;
    assert_eq!(
        (vec.status, vec.error().as_str()),
        (StatusCode::BAD_REQUEST, "\"vec\" does not support chat")
    );
}

#[tokio::test]
async fn chat_no_messages_load_and_unload() {
    let kit = Kit::new();
    let load = kit.post("/api/chat", json!({"model": "m"})).await.json();
    assert_eq!(load["done_reason"], "load");
    assert_eq!(load["message"], json!({"role": "assistant", "content": ""}));
    assert_eq!(kit.server.models.running().len(), 1);
    let unload = kit.post("/api/chat", json!({"model": "m", "messages": [], "keep_alive": 0})).await.json();
    assert_eq!((&unload["done_reason"], &unload["done"]), (&json!("unload"), &json!(true)));
    assert!(kit.server.models.running().is_empty());
}

#[tokio::test]
async fn chat_the_models_system_and_messages_come_first() {
    let say = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let with = set(ModelSettings {
        system: Some("own".into()),
        messages: vec![say("user", "q"), say("assistant", "a")],
        ..ModelSettings::default()
    });
    let kit = Setup { models: vec![with], ..Setup::default() }.start();
    ask(&kit, json!({})).await;
    assert_eq!(kit.script.last().text, "<system>own<user>q<assistant>a<user>hi<assistant>");
    ask(
        &kit,
        json!({"messages": [{"role": "system", "content": "mine"}, {"role": "user", "content": "hi"}]}),
    )
    .await;
    assert_eq!(kit.script.last().text, "<user>q<assistant>a<system>mine<user>hi<assistant>");
}

#[tokio::test]
async fn chat_the_oldest_messages_go_and_the_system_stays() {
    let kit = Kit::new();
    let messages = json!([
        {"role": "system", "content": "S"},
        {"role": "user", "content": "old question"},
        {"role": "assistant", "content": "old answer"},
        {"role": "user", "content": "new"},
    ]);
    let whole = "<system>S<user>old question<assistant>old answer<user>new<assistant>".len() + 1;
    let with = |num_ctx: usize| json!({"messages": messages, "options": {"num_ctx": num_ctx}});
    ask(&kit, with(whole + 1)).await;
    assert!(kit.script.last().text.contains("old question"));
    ask(&kit, with(whole)).await;
    assert_eq!(kit.script.last().text, "<system>S<assistant>old answer<user>new<assistant>");
    ask(&kit, with(40)).await;
    assert_eq!(kit.script.last().text, "<system>S<user>new<assistant>");
    let mut refused = with(40);
    refused["truncate"] = json!(false);
    let answer = ask(&kit, refused).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.error().contains("context length"));
}

/// `count` questions and answers of about as many characters.
fn long_talk(count: usize) -> Vec<Value> {
    let turn = |at: usize| {
        let role = if at.is_multiple_of(2) { "user" } else { "assistant" };
        json!({"role": role, "content": format!("{at:0>width$}", width = 20 + at % 7)})
    };
    (0..count).map(turn).chain([json!({"role": "user", "content": "new"})]).collect()
}

#[tokio::test]
async fn chat_a_long_conversation_is_rendered_a_few_times_and_the_fewest_messages_go() {
    let kit = Kit::new();
    for num_ctx in [100, 1000, 3000, 4000] {
        kit.script.chats.lock().unwrap().clear();
        ask(&kit, json!({"messages": long_talk(400), "options": {"num_ctx": num_ctx}})).await;
        let text = kit.script.last().text;
        assert!(text.len() < num_ctx && text.ends_with("<user>new<assistant>"), "{num_ctx}: {text}");
        assert!(text.len() + "<assistant>".len() + 28 > num_ctx, "{num_ctx}: one more would have fitted");
        let rendered = kit.script.chats.lock().unwrap().len();
        assert!(rendered <= 6, "{num_ctx}: rendered {rendered} times");
    }
}

#[tokio::test]
async fn chat_a_template_that_wants_a_question_first_costs_one_more_message() {
    let kit = Kit::new();
    let failure = hypura_server::Failure::internal("roles must alternate");
    *kit.script.fail_answer_first.lock().unwrap() = Some(failure);
    ask(&kit, json!({"messages": long_talk(40), "options": {"num_ctx": 300}})).await;
    assert!(kit.script.last().text.starts_with("<user>"), "{}", kit.script.last().text);
}

#[tokio::test]
async fn chat_what_is_wrong_with_a_request_is_no_reason_to_leave_messages_out() {
    let kit = Kit::new();
    let refused = hypura_server::Failure::bad_request("tools and a grammar exclude each other");
    *kit.script.fail_answer_first.lock().unwrap() = Some(refused);
    let answer = ask(&kit, json!({"messages": long_talk(40), "options": {"num_ctx": 300}})).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (StatusCode::BAD_REQUEST, "tools and a grammar exclude each other")
    );
}

#[tokio::test]
async fn chat_every_chunk_has_a_message_of_the_assistant() {
    let kit = Kit::new();
    let lines = ask(&kit, json!({"stream": true, "model": "M"})).await.lines();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert_eq!(line["message"]["role"], "assistant");
        assert!(line["message"]["content"].is_string());
        assert_eq!(line["model"], "M");
    }
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
    assert!(last["prompt_eval_count"].as_u64().unwrap() > 0);
    assert!(last.get("context").is_none());
}

#[tokio::test]
async fn chat_tool_calls_come_whole_before_the_end() {
    let kit = Kit::answering(&[Step::Text("let me see"), Step::Text("<call>f {\"z\":1,\"a\":{\"b\":[2]}}")]);
    let lines = ask(&kit, json!({"stream": true})).await.lines();
    let call = &lines[1]["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "f");
    assert_eq!(call["function"]["index"], 0);
    assert_eq!(call["function"]["arguments"].to_string(), "{\"z\":1,\"a\":{\"b\":[2]}}");
    let id = call["id"].as_str().unwrap();
    assert!(id.starts_with("call_") && id.len() == 13);
    assert_eq!(lines[1]["done"], false);
    assert_eq!(lines[2]["done_reason"], "stop");
    let whole = ask(&kit, json!({})).await.json();
    assert_eq!(whole["message"]["content"], "let me see");
    assert_eq!(whole["message"]["tool_calls"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn chat_thinking_and_content_are_never_in_one_chunk() {
    let kit =
        Kit::answering(&[Step::Text("<think>"), Step::Text("hm"), Step::Text("</think>"), Step::Text("so")]);
    let lines = ask(&kit, json!({"stream": true})).await.lines();
    assert_eq!(lines[0]["message"], json!({"role": "assistant", "content": "", "thinking": "hm"}));
    assert_eq!(lines[1]["message"], json!({"role": "assistant", "content": "so"}));
    for line in &lines {
        assert!(!line.to_string().contains("<think>"));
    }
    let whole = ask(&kit, json!({"think": true})).await.json();
    assert_eq!((&whole["message"]["thinking"], &whole["message"]["content"]), (&json!("hm"), &json!("so")));
    let refused = ask(&kit, json!({"model": "plain", "think": true})).await;
    assert_eq!(refused.error(), "\"plain\" does not support thinking");
}

#[tokio::test]
async fn chat_an_answer_at_the_end_is_continued() {
    let kit = Kit::new();
    let messages = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well,"}]);
    ask(&kit, json!({"messages": messages})).await;
    assert_eq!(kit.script.last().text, "<user>hi<assistant>Well,");
}

#[tokio::test]
async fn chat_the_rendered_prompt_alone() {
    let answer = ask(&Kit::new(), json!({"_debug_render_only": true})).await.json();
    assert_eq!(answer["_debug_info"]["rendered_template"], "<user>hi<assistant>");
    assert_eq!(answer["message"]["role"], "assistant");
}

#[tokio::test]
async fn names_chat() {
    let kit = Kit::new();
    for (name, status, error) in [
        ("", StatusCode::BAD_REQUEST, "model is required"),
        ("a b", StatusCode::BAD_REQUEST, "invalid model name"),
        ("nope", StatusCode::NOT_FOUND, "model 'nope' not found"),
    ] {
        let answer = ask(&kit, json!({"model": name})).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error));
    }
    assert_eq!(ask(&kit, json!({"model": "M:LATEST"})).await.json()["model"], "M:LATEST");
}

#[tokio::test]
async fn errors_a_template_that_fails_is_a_500_unless_the_request_brought_it() {
    let kit = Kit::new();
    *kit.script.fail_render.lock().unwrap() = Some(hypura_server::Failure::internal("roles must alternate"));
    let answer = ask(&kit, json!({})).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (StatusCode::INTERNAL_SERVER_ERROR, "roles must alternate")
    );
    let own =
        json!({"model": "m", "prompt": "x", "template": "{% if messages %}{% endif %}", "stream": false});
    let answer = kit.post("/api/generate", own).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (StatusCode::BAD_REQUEST, "template error: roles must alternate")
    );
}

#[tokio::test]
async fn errors_no_path_reaches_a_client() {
    let kit = Kit::new();
    *kit.script.fail_load.lock().unwrap() = Some("the file is broken");
    let answer = ask(&kit, json!({})).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!answer.text().contains("/secret"));
    // The next request tries again.
    *kit.script.fail_load.lock().unwrap() = None;
    assert_eq!(ask(&kit, json!({})).await.status, StatusCode::OK);
}

//! Bodies of `/v1/responses` as jobs.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::input;
use super::tools::{self, ToolNames};
use crate::Failure;
use crate::job::{ChatJob, Format, JobBase, Message};
use crate::openai::content;
use crate::options::Options;
use crate::recent::Recent;

/// A body, as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    model: String,
    input: Value,
    instructions: Option<String>,
    tools: Vec<Value>,
    tool_choice: Value,
    parallel_tool_calls: Option<bool>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    max_output_tokens: Option<i64>,
    reasoning: Value,
    text: Value,
    truncation: Option<String>,
    metadata: Value,
    previous_response_id: Value,
    conversation: Value,
    background: Option<bool>,
    store: Option<bool>,
    pub stream: Option<bool>,
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::bad_request(message)
}

impl Request {
    /// Whether later requests may refer to the answer.
    pub fn store(&self) -> bool {
        self.store.unwrap_or(true)
    }

    /// What the client calls the tools.
    pub fn tool_names(&self) -> ToolNames {
        ToolNames::of(&self.tools)
    }

    /// What an answer repeats of its request; every field is there, null where nothing was said.
    pub fn echo(&self) -> Map<String, Value> {
        let text =
            if self.text.is_object() { self.text.clone() } else { json!({"format": {"type": "text"}}) };
        let echo = json!({
            "model": self.model,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": null,
            "metadata": if self.metadata.is_object() { self.metadata.clone() } else { json!({}) },
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": self.previous_response_id,
            "reasoning": {"effort": self.reasoning["effort"], "summary": self.reasoning["summary"]},
            "service_tier": "default",
            "store": self.store(),
            "background": false,
            "temperature": self.temperature.unwrap_or(1.0),
            "text": text,
            "tool_choice": if self.tool_choice.is_null() { json!("auto") } else { self.tool_choice.clone() },
            "tools": self.tools,
            "top_logprobs": 0,
            "top_p": self.top_p.unwrap_or(1.0),
            "truncation": self.truncation.as_deref().unwrap_or("disabled"),
            "user": null,
        });
        if let Value::Object(map) = echo { map } else { Map::new() }
    }

    /// The conversation, with the parts of earlier ones that it refers to.
    pub fn items(&self, recent: &Recent) -> Result<Vec<Value>, Failure> {
        if !self.conversation.is_null() || self.background == Some(true) {
            return Err(bad(
                "conversation and background are not supported: send the whole conversation as input",
            ));
        }
        let items = match &self.input {
            Value::String(text) => vec![json!({"type": "message", "role": "user", "content": text})],
            Value::Array(items) if !items.is_empty() => items.clone(),
            _ => return Err(bad("input must be a string or an array of items")),
        };
        recent.resolve(self.previous_response_id.as_str(), items)
    }

    /// The job; `items` are its conversation.
    pub fn job(self, items: &[Value], received: Instant) -> Result<ChatJob, Failure> {
        if self.model.is_empty() {
            return Err(bad("model is required"));
        }
        let mut messages = Vec::new();
        if let Some(text) = self.instructions.filter(|text| !text.is_empty()) {
            messages.push(Message::text("system", text));
        }
        input::read(items, &mut messages)?;
        let mut tools = tools::functions(&self.tools)?;
        let tool_choice = content::tool_choice(&self.tool_choice, &mut tools)?;
        let effort = self.reasoning["effort"].as_str().filter(|word| !word.is_empty());
        let options = Options {
            num_predict: self.max_output_tokens,
            temperature: Some(self.temperature.unwrap_or(1.0)),
            top_p: Some(self.top_p.unwrap_or(1.0)),
            ..Options::default()
        };
        let base =
            JobBase { options, received, grows: true, strict_think: false, ..JobBase::new(self.model) };
        Ok(ChatJob {
            tools,
            tool_choice,
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            format: format(&self.text["format"]),
            think: effort.map(content::effort).transpose()?,
            ..ChatJob::new(base, messages)
        })
    }
}

/// What `text.format` asks for; what is none asks for nothing, as in Ollama.
fn format(value: &Value) -> Format {
    match value["type"].as_str() {
        Some("json_object") => Format::Json,
        Some("json_schema") if value["schema"].is_object() => Format::Schema(value["schema"].clone()),
        _ => Format::Free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(body: &str) -> Result<ChatJob, Failure> {
        let request = crate::body::request::<Request>(&bytes::Bytes::from(body.to_owned()))?;
        let items = request.items(&Recent::default())?;
        request.job(&items, Instant::now())
    }

    fn read(body: Value) -> Result<ChatJob, Failure> {
        judged(&body.to_string())
    }

    fn with(field: &str, value: Value) -> Result<ChatJob, Failure> {
        let mut body = json!({"model": "m", "input": "x"});
        body[field] = value;
        read(body)
    }

    #[test]
    fn responses_items_become_messages() {
        let job = with(
            "input",
            json!([
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}], "encrypted_content": "t"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b", "annotations": []}]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"z\":1,\"a\":2}"},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": ""},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "r"}]},
                {"type": "web_search_call", "id": "w"},
                {"type": "function_call_output", "output": "of the other"},
                {"type": "function_call", "call_id": "c3", "namespace": "ns", "name": "h", "arguments": "{}"},
                {"type": "custom_tool_call", "call_id": "c4", "name": "apply_patch", "input": "*** Begin"},
                {"type": "custom_tool_call_output", "call_id": "c4", "output": "done"},
                {"type": "local_shell_call", "call_id": "c5", "action": {"type": "exec", "command": ["ls"]}},
                {"type": "compaction", "encrypted_content": "zz"},
                {"role": "robot", "content": [{"type": "input_file", "filename": "a.pdf"}, {"type": "hologram", "text": "b"}]}
            ]),
        )
        .unwrap();
        let messages = &job.messages;
        assert_eq!(
            (messages[3].tool_name.as_deref(), messages[3].content.as_str()),
            (Some("f"), "of the other")
        );
        let names: Vec<_> = messages[4].tool_calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["ns.h", "apply_patch"]);
        assert_eq!(messages[4].tool_calls[1].arguments, json!({"input": "*** Begin"}));
        assert_eq!(
            (messages[5].tool_name.as_deref(), messages[5].content.as_str()),
            (Some("apply_patch"), "done")
        );
        assert_eq!(messages[6].tool_calls[0].arguments["command"], json!(["ls"]));
        assert_eq!(messages[7], Message::text("user", "[compaction: left out]"));
        assert_eq!(messages[8], Message::text("user", "[input_file: left out]\n[hologram]\nb"));
        assert_eq!(messages.len(), 9);
        assert_eq!(messages[0], Message::text("user", "a"));
        assert_eq!((messages[1].content.as_str(), messages[1].thinking.as_deref()), ("b", Some("t")));
        assert_eq!(messages[1].tool_calls.len(), 2);
        assert_eq!(messages[1].tool_calls[0].arguments.to_string(), r#"{"z":1,"a":2}"#);
        assert_eq!((messages[2].tool_name.as_deref(), messages[2].content.as_str()), (Some("g"), "r"));
    }

    #[test]
    fn responses_fields() {
        let options = with("max_output_tokens", json!(4)).unwrap().base.options;
        assert_eq!(
            (options.num_predict, options.temperature, options.top_p),
            (Some(4), Some(1.0), Some(1.0))
        );
        assert_eq!(with("instructions", json!("s")).unwrap().messages[0], Message::text("system", "s"));
        let schema = json!({"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}});
        assert_eq!(with("text", schema).unwrap().format, Format::Schema(json!({"type": "object"})));
        let tools = json!([{"type": "function", "name": "f"}, {"type": "web_search"},
            {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "g"}]}, {}]);
        let job = with("tools", tools).unwrap();
        let names: Vec<_> = job.tools.iter().map(|tool| tool["function"]["name"].clone()).collect();
        assert_eq!(names, [json!("f"), json!("ns.g")]);
    }

    #[test]
    fn responses_wrong_fields_are_400() {
        for (field, value) in [
            ("model", json!("")),
            ("input", json!(null)),
            ("input", json!([])),
            ("input", json!([{"role": "user", "content": 1}])),
            ("input", json!([{"type": "function_call", "call_id": "c"}])),
            ("previous_response_id", json!("resp_1")),
            ("conversation", json!({"id": "c"})),
            ("background", json!(true)),
            ("tools", json!([{"type": "function"}])),
            ("reasoning", json!({"effort": "extreme"})),
        ] {
            assert_eq!(with(field, value.clone()).unwrap_err().status, 400, "{field}: {value}");
        }
    }

    proptest! {
        #[test]
        fn responses_any_body_is_judged_without_a_panic(
            field in prop::sample::select(vec!["input", "tools", "text", "reasoning", "tool_choice", "instructions"]),
            text in "[\\[\\]{}\",:a-z0-9.-]{0,40}",
        ) {
            let body = format!("{{\"model\":\"m\",\"input\":\"x\",\"{field}\":{text}}}");
            let result = judged(&body);
            prop_assert!(result.err().is_none_or(|failure| failure.status == 400));
        }
    }
}

//! Bodies of `/v1/responses` as jobs.

use std::io::Read as _;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::job::{ChatJob, Format, JobBase, Message, ToolCall};
use crate::openai::content;
use crate::options::Options;
use crate::{Failure, body};

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
    pub stream: Option<bool>,
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::bad_request(message)
}

/// The body without its compression.
///
/// # Errors
/// 400 for what is no zstd, 413 for what is too big without it, 415 for another coding.
pub(super) fn decompressed(headers: &HeaderMap, bytes: Bytes) -> Result<Bytes, Failure> {
    let coding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim());
    match coding {
        None | Some("" | "identity") => Ok(bytes),
        Some("zstd") => {
            let broken = || bad("the body is no zstd");
            let mut decoder =
                ruzstd::decoding::StreamingDecoder::new(bytes.as_ref()).map_err(|_| broken())?;
            let mut plain = Vec::new();
            let most = body::MOST_BYTES as u64;
            let read = (&mut decoder).take(most + 1).read_to_end(&mut plain).map_err(|_| broken())?;
            if read as u64 > most {
                return Err(body::too_large());
            }
            Ok(Bytes::from(plain))
        }
        Some(other) => Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("content encoding {other:?} is not supported: use zstd or none"),
        )),
    }
}

impl Request {
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
            "previous_response_id": null,
            "reasoning": {"effort": self.reasoning["effort"], "summary": self.reasoning["summary"]},
            "service_tier": "default",
            "store": false,
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

    /// The job.
    pub fn job(self, received: Instant) -> Result<ChatJob, Failure> {
        if self.model.is_empty() {
            return Err(bad("model is required"));
        }
        if !self.previous_response_id.is_null()
            || !self.conversation.is_null()
            || self.background == Some(true)
        {
            return Err(bad(
                "previous_response_id, conversation and background are not supported: send the whole conversation as input",
            ));
        }
        let mut messages = Vec::new();
        if let Some(text) = self.instructions.filter(|text| !text.is_empty()) {
            messages.push(Message::text("system", text));
        }
        read_input(&self.input, &mut messages)?;
        let mut tools = tools(&self.tools)?;
        let tool_choice = content::tool_choice(&self.tool_choice, &mut tools)?;
        let effort = self.reasoning["effort"].as_str().filter(|word| !word.is_empty());
        let options = Options {
            num_predict: self.max_output_tokens,
            temperature: Some(self.temperature.unwrap_or(1.0)),
            top_p: Some(self.top_p.unwrap_or(1.0)),
            ..Options::default()
        };
        let base = JobBase { options, received, strict_think: false, ..JobBase::new(self.model) };
        Ok(ChatJob {
            tools,
            tool_choice,
            parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
            format: format(&self.text["format"])?,
            think: effort.map(content::effort).transpose()?,
            ..ChatJob::new(base, messages)
        })
    }
}

fn format(value: &Value) -> Result<Format, Failure> {
    match value["type"].as_str() {
        None if value.is_null() => Ok(Format::Free),
        Some("text") => Ok(Format::Free),
        Some("json_object") => Ok(Format::Json),
        Some("json_schema") if value["schema"].is_object() => Ok(Format::Schema(value["schema"].clone())),
        _ => Err(bad("invalid text.format")),
    }
}

fn read_input(input: &Value, messages: &mut Vec<Message>) -> Result<(), Failure> {
    match input {
        Value::String(text) => messages.push(Message::text("user", text.clone())),
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                add_item(item, messages)
                    .map_err(|failure| bad(format!("input[{at}]: {}", failure.message)))?;
            }
            // Reasoning that nothing followed.
            if messages.last().is_some_and(is_only_thinking) {
                messages.pop();
            }
        }
        _ => return Err(bad("input must be a string or an array of items")),
    }
    Ok(())
}

fn is_only_thinking(message: &Message) -> bool {
    message.thinking.is_some() && message.content.is_empty() && message.tool_calls.is_empty()
}

/// The assistant's message that reasoning or calls belong to: the last one, if it is still open for them.
fn open_assistant(messages: &mut Vec<Message>) -> Option<&mut Message> {
    if messages.last().is_none_or(|last| last.role != "assistant") {
        messages.push(Message::text("assistant", ""));
    }
    messages.last_mut()
}

fn add_item(item: &Value, messages: &mut Vec<Message>) -> Result<(), Failure> {
    match item["type"].as_str() {
        None | Some("message") => add_message(item, messages),
        Some("function_call") => {
            let name = item["name"].as_str().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| bad("a function_call needs a name"))?.to_owned();
            let id =
                item["call_id"].as_str().ok_or_else(|| bad("a function_call needs a call_id"))?.to_owned();
            let arguments = content::arguments(&item["arguments"])?;
            if let Some(message) = open_assistant(messages) {
                let index = u32::try_from(message.tool_calls.len()).unwrap_or(u32::MAX);
                message.tool_calls.push(ToolCall { index, id, name, arguments });
            }
            Ok(())
        }
        Some("function_call_output") => {
            let id = item["call_id"].as_str().ok_or_else(|| bad("a function_call_output needs a call_id"))?;
            let mut message = Message::text("tool", "");
            match &item["output"] {
                Value::String(text) => message.content.clone_from(text),
                Value::Array(parts) => parts.iter().try_for_each(|part| content::part(part, &mut message))?,
                _ => return Err(bad("the output of a function must be a string or parts")),
            }
            message.tool_name = content::name_of_call(messages, Some(id));
            message.tool_call_id = Some(id.to_owned());
            messages.push(message);
            Ok(())
        }
        Some("reasoning") => {
            let text = thought(item);
            if !text.is_empty() {
                messages.push(Message { thinking: Some(text), ..Message::text("assistant", "") });
            }
            Ok(())
        }
        Some("web_search_call") => Ok(()),
        Some(other) => Err(bad(format!("items of type {other:?} are not supported"))),
    }
}

/// The reasoning of an item: its summary, or what we gave as encrypted (it is the text itself).
fn thought(item: &Value) -> String {
    let parts = item["summary"].as_array().into_iter().flatten();
    let summary: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    if summary.is_empty() {
        return item["encrypted_content"].as_str().unwrap_or_default().to_owned();
    }
    summary.join("\n")
}

fn add_message(item: &Value, messages: &mut Vec<Message>) -> Result<(), Failure> {
    let role = match item["role"].as_str() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        other => return Err(bad(format!("invalid role: {:?}", other.unwrap_or_default()))),
    };
    let mut message = Message::text(role, "");
    match &item["content"] {
        Value::Null if role == "assistant" => {}
        Value::String(text) => message.content.clone_from(text),
        Value::Array(parts) => parts.iter().try_for_each(|part| content::part(part, &mut message))?,
        _ => return Err(bad("content must be a string or an array of parts")),
    }
    if role == "assistant" && messages.last().is_some_and(is_only_thinking) {
        message.thinking = messages.pop().and_then(|before| before.thinking);
    }
    messages.push(message);
    Ok(())
}

/// Functions in the shape of chat; a namespace's are called `namespace.name`; tools that other servers run are left out.
fn tools(values: &[Value]) -> Result<Vec<Value>, Failure> {
    let mut out = Vec::with_capacity(values.len());
    for tool in values {
        match tool["type"].as_str() {
            Some("function") => out.push(function(tool, "")?),
            Some("namespace") => {
                let prefix = format!("{}.", tool["name"].as_str().unwrap_or_default());
                for inner in tool["tools"].as_array().into_iter().flatten() {
                    out.push(function(inner, &prefix)?);
                }
            }
            Some(_) => {}
            None => return Err(bad("a tool needs a type")),
        }
    }
    Ok(out)
}

fn function(tool: &Value, prefix: &str) -> Result<Value, Failure> {
    let name = tool["name"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| bad("a function needs a name"))?;
    let description = tool["description"].as_str().unwrap_or_default();
    let parameters = if tool["parameters"].is_object() {
        tool["parameters"].clone()
    } else {
        json!({"type": "object", "properties": {}})
    };
    Ok(json!({"type": "function", "function": {
        "name": format!("{prefix}{name}"), "description": description, "parameters": parameters}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: Value) -> Result<ChatJob, Failure> {
        body::request::<Request>(&Bytes::from(body.to_string()))?.job(Instant::now())
    }

    fn with(field: &str, value: Value) -> Result<ChatJob, Failure> {
        let mut body = json!({"model": "m", "input": "x"});
        body[field] = value;
        read(body)
    }

    #[test]
    fn responses_10_5_items_become_messages() {
        let job = with(
            "input",
            json!([
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}], "encrypted_content": "t"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b", "annotations": []}]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"z\":1,\"a\":2}"},
                {"type": "function_call", "call_id": "c2", "name": "g", "arguments": ""},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "r"}]},
                {"type": "web_search_call", "id": "w"}
            ]),
        )
        .unwrap();
        let messages = &job.messages;
        assert_eq!(messages.len(), 3);
        assert_eq!(messages[0], Message::text("user", "a"));
        assert_eq!((messages[1].content.as_str(), messages[1].thinking.as_deref()), ("b", Some("t")));
        assert_eq!(messages[1].tool_calls.len(), 2);
        assert_eq!(messages[1].tool_calls[0].arguments.to_string(), r#"{"z":1,"a":2}"#);
        assert_eq!((messages[2].tool_name.as_deref(), messages[2].content.as_str()), (Some("g"), "r"));
    }

    #[test]
    fn responses_10_5_fields() {
        let options = with("max_output_tokens", json!(4)).unwrap().base.options;
        assert_eq!(
            (options.num_predict, options.temperature, options.top_p),
            (Some(4), Some(1.0), Some(1.0))
        );
        assert_eq!(with("instructions", json!("s")).unwrap().messages[0], Message::text("system", "s"));
        let schema = json!({"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}});
        assert_eq!(with("text", schema).unwrap().format, Format::Schema(json!({"type": "object"})));
        let tools = json!([{"type": "function", "name": "f"}, {"type": "web_search"},
            {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "g"}]}]);
        let job = with("tools", tools).unwrap();
        let names: Vec<_> = job.tools.iter().map(|tool| tool["function"]["name"].clone()).collect();
        assert_eq!(names, [json!("f"), json!("ns.g")]);
    }

    #[test]
    fn responses_10_5_wrong_fields_are_400() {
        for (field, value) in [
            ("model", json!("")),
            ("input", json!(null)),
            ("input", json!([])),
            ("input", json!([{"role": "robot", "content": "x"}])),
            ("input", json!([{"role": "user", "content": [{"type": "input_file"}]}])),
            ("input", json!([{"type": "function_call", "name": "f"}])),
            ("input", json!([{"type": "function_call_output", "output": "x"}])),
            ("input", json!([{"type": "computer_call"}])),
            ("previous_response_id", json!("resp_1")),
            ("conversation", json!({"id": "c"})),
            ("background", json!(true)),
            ("tools", json!([{}])),
            ("text", json!({"format": {"type": "xml"}})),
            ("reasoning", json!({"effort": "extreme"})),
        ] {
            assert_eq!(with(field, value.clone()).unwrap_err().status, 400, "{field}: {value}");
        }
    }

    #[test]
    fn responses_10_5_codings() {
        let coded = |coding: &'static str, bytes: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
            decompressed(&headers, Bytes::from_static(bytes))
        };
        // `zstd` of "{}": magic, a frame of one segment and 2 bytes, one raw last block.
        let frame = b"\x28\xb5\x2f\xfd\x20\x02\x11\x00\x00{}";
        assert_eq!(coded("zstd", frame).unwrap(), "{}");
        assert_eq!(coded("zstd", b"{}").unwrap_err().status, 400);
        assert_eq!(coded("zstd", &frame[..9]).unwrap_err().status, 400);
        assert_eq!(coded("br", b"{}").unwrap_err().status, 415);
        assert_eq!(decompressed(&HeaderMap::new(), Bytes::from_static(b"{}")).unwrap(), "{}");
    }

    proptest! {
        #[test]
        fn responses_10_5_any_body_is_judged_without_a_panic(
            field in prop::sample::select(vec!["input", "tools", "text", "reasoning", "tool_choice", "instructions"]),
            text in "[\\[\\]{}\",:a-z0-9.-]{0,40}",
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let body = format!("{{\"model\":\"m\",\"input\":\"x\",\"{field}\":{text}}}");
            let result = body::request::<Request>(&Bytes::from(body)).and_then(|request| request.job(Instant::now()));
            prop_assert!(result.err().is_none_or(|failure| failure.status == 400));
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, "zstd".parse().unwrap());
            let mut framed = b"\x28\xb5\x2f\xfd".to_vec();
            framed.extend(bytes);
            let _ = decompressed(&headers, Bytes::from(framed));
        }
    }
}

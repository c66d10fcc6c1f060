//! Bodies of `/v1/messages` as jobs.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Failure;
use crate::job::{ChatJob, Format, JobBase, Message, Think, ToolCall, ToolChoice};
use crate::notes;
use crate::openai::{arguments, effort as effort_of, name_of_call, role};
use crate::options::Options;

/// A body, as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    model: String,
    max_tokens: Option<i64>,
    messages: Option<Vec<Value>>,
    system: Value,
    tools: Vec<Value>,
    tool_choice: Value,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    stop_sequences: Option<Vec<String>>,
    thinking: Value,
    output_config: Value,
    output_format: Value,
    pub stream: Option<bool>,
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::bad_request(message)
}

impl Request {
    /// The job; `answer` is false where tokens are only counted, which needs no `max_tokens`.
    pub fn job(self, received: Instant, answer: bool) -> Result<ChatJob, Failure> {
        if self.model.is_empty() {
            return Err(bad("model is required"));
        }
        if answer && self.max_tokens.is_none_or(|count| count <= 0) {
            return Err(bad("max_tokens is required and must be positive"));
        }
        let given = self.messages.filter(|messages| !messages.is_empty());
        let given = given.ok_or_else(|| bad("messages is required"))?;
        let mut messages = Vec::with_capacity(given.len() + 1);
        let system = text_of(&self.system, "system")?;
        if !system.is_empty() {
            messages.push(Message::text("system", system));
        }
        for (at, value) in given.iter().enumerate() {
            add_message(value, &mut messages)
                .map_err(|failure| bad(format!("messages.{at}: {}", failure.message)))?;
        }
        let mut tools = tools(&self.tools)?;
        let tool_choice = tool_choice(&self.tool_choice, &mut tools)?;
        let options = Options {
            num_predict: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            stop: self.stop_sequences,
            ..Options::default()
        };
        let base =
            JobBase { options, received, grows: true, strict_think: false, ..JobBase::new(self.model) };
        Ok(ChatJob {
            tools,
            tool_choice,
            parallel_tool_calls: self.tool_choice["disable_parallel_tool_use"] != true,
            format: format(&self.output_config["format"], &self.output_format),
            think: think(&self.thinking, &self.output_config),
            ..ChatJob::new(base, messages)
        })
    }
}

/// A schema that the answer must keep to, in the field where it is now or in the one where it was.
fn format(now: &Value, before: &Value) -> Format {
    let given = if now.is_null() { before } else { now };
    match (given["type"].as_str(), &given["schema"]) {
        (Some("json_schema"), schema @ (Value::Object(_) | Value::Bool(_))) => Format::Schema(schema.clone()),
        _ => Format::Free,
    }
}

/// A string, or blocks of text.
fn text_of(value: &Value, what: &str) -> Result<String, Failure> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
            Ok(texts.join("\n"))
        }
        _ => Err(bad(format!("{what} must be a string or an array of blocks"))),
    }
}

/// Adds what a message of a turn means: results of tools come before what the user says.
fn add_message(value: &Value, messages: &mut Vec<Message>) -> Result<(), Failure> {
    if !value.is_object() {
        return Err(bad("a message must be an object"));
    }
    let mut message = Message::text(role(value["role"].as_str().unwrap_or_default()), "");
    let mut results = Vec::new();
    match &value["content"] {
        Value::String(text) => message.content.clone_from(text),
        Value::Array(blocks) => {
            for block in blocks {
                if block["type"] == "tool_result" {
                    results.push(tool_result(block, messages)?);
                } else {
                    add_block(block, &mut message)?;
                }
            }
        }
        _ => return Err(bad("content must be a string or an array of blocks")),
    }
    let only_results = !results.is_empty() && message.content.is_empty() && message.media.is_empty();
    messages.append(&mut results);
    if !only_results {
        messages.push(message);
    }
    Ok(())
}

fn add_block(block: &Value, message: &mut Message) -> Result<(), Failure> {
    match block["type"].as_str().unwrap_or_default() {
        "text" => {
            let text = block["text"].as_str().ok_or_else(|| bad("a text block needs a text"))?;
            message.push_text(text);
        }
        "image" => message.push_media(image(block)?),
        "thinking" => {
            let text = block["thinking"].as_str().unwrap_or_default();
            message.thinking.get_or_insert_default().push_str(text);
        }
        "tool_use" => {
            let name = block["name"].as_str().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| bad("a tool_use block needs a name"))?.to_owned();
            let at = message.tool_calls.len();
            let id = block["id"].as_str().map_or_else(|| format!("call_{at:08}"), str::to_owned);
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            message.tool_calls.push(ToolCall { index, id, name, arguments: arguments(&block["input"])? });
        }
        // Nobody can read it.
        "redacted_thinking" => {}
        _ => message.push_text(&notes::of_part(block)),
    }
    Ok(())
}

fn image(block: &Value) -> Result<Vec<u8>, Failure> {
    let source = &block["source"];
    let data = source["data"].as_str().filter(|_| source["type"] == "base64");
    let data = data.ok_or_else(|| bad("images must come as base64"))?;
    STANDARD.decode(data.trim()).map_err(|_| bad("an image is no base64"))
}

fn tool_result(block: &Value, earlier: &[Message]) -> Result<Message, Failure> {
    let id = block["tool_use_id"].as_str().ok_or_else(|| bad("a tool_result block needs a tool_use_id"))?;
    let mut message = Message::text("tool", "");
    match &block["content"] {
        Value::Null => {}
        Value::String(text) => message.content.clone_from(text),
        Value::Array(blocks) => blocks.iter().try_for_each(|block| add_block(block, &mut message))?,
        _ => return Err(bad("the content of a tool_result must be a string or blocks")),
    }
    if block["is_error"] == true {
        const PREFIX: &str = "Error: ";
        message.content.insert_str(0, PREFIX);
        message.media_places.iter_mut().for_each(|place| *place += PREFIX.len());
    }
    message.tool_calls.clear();
    message.tool_name = name_of_call(earlier, Some(id));
    message.tool_call_id = Some(id.to_owned());
    Ok(message)
}

/// Tools with a schema, in OpenAI's shape; tools that Anthropic's own servers run are left out.
fn tools(values: &[Value]) -> Result<Vec<Value>, Failure> {
    let mut out = Vec::with_capacity(values.len());
    for tool in values {
        if !matches!(tool["type"].as_str(), None | Some("custom")) {
            continue;
        }
        let name = tool["name"].as_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| bad("a tool needs a name"))?;
        let given = Some(&tool["input_schema"]).filter(|schema| schema.is_object()).cloned();
        let parameters = given.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        let description = tool["description"].as_str().unwrap_or_default();
        let mut function = json!({"name": name, "description": description, "parameters": parameters});
        if tool["strict"] == true {
            function["strict"] = json!(true);
        }
        out.push(json!({"type": "function", "function": function}));
    }
    Ok(out)
}

fn tool_choice(value: &Value, tools: &mut Vec<Value>) -> Result<ToolChoice, Failure> {
    match value["type"].as_str() {
        Some("none") => Ok(ToolChoice::None),
        Some("any") if tools.is_empty() => Err(bad("tool_choice wants a call, but there are no tools")),
        Some("any") => Ok(ToolChoice::Required),
        Some("tool") => {
            tools.retain(|tool| tool["function"]["name"] == value["name"]);
            if tools.is_empty() {
                return Err(bad("tool_choice names a tool that is not there"));
            }
            Ok(ToolChoice::Required)
        }
        _ => Ok(ToolChoice::Auto),
    }
}

/// Whether and how hard to think. A budget is taken, but not enforced; words that are not known say nothing,
/// as in Ollama.
fn think(thinking: &Value, config: &Value) -> Option<Think> {
    let on = match thinking["type"].as_str() {
        Some("enabled" | "adaptive") => Some(true),
        Some("disabled") => return Some(Think::Switch(false)),
        _ => None,
    };
    let effort = config["effort"].as_str().map(|word| word.trim().to_lowercase());
    effort.and_then(|word| effort_of(&word).ok()).or(on.map(Think::Switch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn read(value: Value) -> Result<ChatJob, Failure> {
        body::request::<Request>(&Bytes::from(value.to_string()))?.job(Instant::now(), true)
    }

    fn with(field: &str, value: Value) -> Result<ChatJob, Failure> {
        let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
        body[field] = value;
        read(body)
    }

    #[test]
    fn messages_blocks_become_messages() {
        let job = with(
            "messages",
            json!([
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": ""},
                    {"type": "text", "text": "c"}, {"type": "tool_use", "id": "u1", "name": "f", "input": {"z": 1, "a": 2}}]},
                {"role": "user", "content": [{"type": "text", "text": "then"},
                    {"type": "tool_result", "tool_use_id": "u1", "content": [{"type": "text", "text": "r"}], "is_error": true}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "u1", "content": "alone"}]}
            ]),
        )
        .unwrap();
        let messages = &job.messages;
        assert_eq!((messages[0].content.as_str(), messages[0].media.len()), ("a\nb", 1));
        assert_eq!((messages[1].content.as_str(), messages[1].thinking.as_deref()), ("c", Some("t")));
        assert_eq!(messages[1].tool_calls[0].arguments.to_string(), r#"{"z":1,"a":2}"#);
        assert_eq!((messages[2].role.as_str(), messages[2].content.as_str()), ("tool", "Error: r"));
        assert_eq!(messages[2].tool_name.as_deref(), Some("f"));
        assert_eq!((messages[3].role.as_str(), messages[3].content.as_str()), ("user", "then"));
        assert_eq!((messages[4].role.as_str(), messages.len()), ("tool", 5));
        let job =
            with("system", json!([{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]))
                .unwrap();
        assert_eq!(job.messages[0], Message::text("system", "s"));
    }

    #[test]
    fn messages_fields() {
        let job = with("stop_sequences", json!(["x"])).unwrap();
        assert_eq!(job.base.options.stop, Some(vec!["x".to_owned()]));
        assert_eq!((job.base.options.num_predict, job.base.strict_think), (Some(9), false));
        let think = |value| with("thinking", value).unwrap().think;
        assert_eq!(think(json!({"type": "enabled", "budget_tokens": 1024})), Some(Think::Switch(true)));
        assert_eq!(think(json!({"type": "disabled"})), Some(Think::Switch(false)));
        assert_eq!(think(Value::Null), None);
        let effort = with("output_config", json!({"effort": "high"})).unwrap().think;
        assert_eq!(effort, Some(Think::Level("high".to_owned())));
        let tools = json!([{"name": "f", "input_schema": {"type": "object"}}, {"type": "web_search_20250305", "name": "w"}]);
        let job = with("tools", tools).unwrap();
        assert_eq!(job.tools.len(), 1);
        assert_eq!(job.tools[0]["function"]["parameters"], json!({"type": "object"}));
    }

    #[test]
    fn unknown_words_and_blocks_are_taken_as_ollama_takes_them() {
        let blocks = json!([{"type": "document", "source": {"type": "text", "data": "d"}}, {"type": "mcp_tool_use", "name": "f", "input": {}},
            {"type": "redacted_thinking", "data": "zz"}, {"type": "text", "text": "t"}]);
        let messages = with("messages", json!([{"role": "robot", "content": blocks}])).unwrap().messages;
        assert_eq!(messages, [Message::text("user", "[document]\nd\n[mcp_tool_use]\nf\n{}\nt")]);
        let result = json!([{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "tool_reference", "tool_name": "g"}]}]);
        let messages = with("messages", json!([{"role": "user", "content": result}])).unwrap().messages;
        assert_eq!(messages[0].content, "[tool_reference]\ng");
        assert_eq!(
            with("system", json!([{"type": "image"}, {"type": "text", "text": "s"}])).unwrap().messages[0]
                .content,
            "s"
        );
        let tools = with("tools", json!([{"name": "f"}])).unwrap().tools;
        assert_eq!(tools[0]["function"]["parameters"], json!({"type": "object", "properties": {}}));
        assert_eq!(with("tool_choice", json!({"type": "perhaps"})).unwrap().tool_choice, ToolChoice::Auto);
        assert_eq!(with("thinking", json!({"type": "maybe"})).unwrap().think, None);
        assert_eq!(with("output_config", json!({"effort": "extreme"})).unwrap().think, None);
    }

    #[test]
    fn an_answer_keeps_to_a_schema_where_one_is_given() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let given = json!({"type": "json_schema", "schema": schema});
        let format = with("output_config", json!({"format": given})).unwrap().format;
        assert_eq!(format, Format::Schema(schema.clone()));
        assert_eq!(with("output_format", given).unwrap().format, Format::Schema(schema));
        assert_eq!(with("output_config", json!({"format": {"type": "xml"}})).unwrap().format, Format::Free);
    }

    #[test]
    fn messages_wrong_fields_are_400() {
        for (field, value) in [
            ("model", json!("")),
            ("max_tokens", json!(0)),
            ("max_tokens", json!(null)),
            ("messages", json!([])),
            ("messages", json!(null)),
            ("messages", json!([1])),
            ("messages", json!([{"role": "user"}])),
            (
                "messages",
                json!([{"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}]),
            ),
            ("messages", json!([{"role": "user", "content": [{"type": "tool_result"}]}])),
            ("system", json!(1)),
            ("tools", json!([{}])),
            ("tool_choice", json!({"type": "any"})),
            ("tool_choice", json!({"type": "tool", "name": "x"})),
        ] {
            assert_eq!(with(field, value.clone()).unwrap_err().status, 400, "{field}: {value}");
        }
    }

    proptest! {
        #[test]
        fn messages_any_body_is_judged_without_a_panic(
            field in prop::sample::select(vec!["messages", "system", "tools", "tool_choice", "thinking", "output_config"]),
            text in "[\\[\\]{}\",:a-z0-9.-]{0,40}",
        ) {
            let body = format!(
                "{{\"model\":\"m\",\"max_tokens\":1,\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],\"{field}\":{text}}}"
            );
            let result = body::request::<Request>(&Bytes::from(body))
                .and_then(|request| request.job(Instant::now(), true));
            prop_assert!(result.err().is_none_or(|failure| failure.status == 400));
        }
    }
}

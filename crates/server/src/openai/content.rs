//! Messages, tools, formats and efforts in OpenAI's shapes, turned into ours.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hypura_engine::media::MediaKind;
use serde_json::{Map, Value, json};

use crate::job::{Format, Message, Think, ToolCall, ToolChoice};
use crate::{Failure, notes};

/// Kinds of pictures that a data URL may hold; an empty one is judged by its bytes.
const PICTURES: [&str; 6] = [
    "data:image/jpeg;base64,",
    "data:image/jpg;base64,",
    "data:image/png;base64,",
    "data:image/webp;base64,",
    "data:image/gif;base64,",
    "data:;base64,",
];

fn bad(message: impl Into<String>) -> Failure {
    Failure::bad_request(message)
}

/// Messages of `/v1/chat/completions`.
///
/// # Errors
/// 400 that names the message.
pub(super) fn messages(values: &[Value]) -> Result<Vec<Message>, Failure> {
    let mut out: Vec<Message> = Vec::with_capacity(values.len());
    for (at, value) in values.iter().enumerate() {
        let mut message =
            message(value).map_err(|failure| bad(format!("messages[{at}]: {}", failure.message)))?;
        if message.role == "tool" && message.tool_name.is_none() {
            message.tool_name = name_of_call(&out, message.tool_call_id.as_deref());
        }
        out.push(message);
    }
    Ok(out)
}

/// The tool of a call that an earlier message made; of two with one id, the later.
pub fn name_of_call(messages: &[Message], id: Option<&str>) -> Option<String> {
    let calls = messages.iter().rev().flat_map(|message| message.tool_calls.iter().rev());
    calls.into_iter().find(|call| Some(call.id.as_str()) == id).map(|call| call.name.clone())
}

fn message(value: &Value) -> Result<Message, Failure> {
    let fields = value.as_object().ok_or_else(|| bad("a message must be an object"))?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let role = role(text("role").unwrap_or_default());
    let mut out = Message::text(role, "");
    content(fields.get("content").unwrap_or(&Value::Null), &mut out)?;
    out.thinking = text("reasoning_content").or_else(|| text("reasoning")).map(str::to_owned);
    out.tool_call_id = text("tool_call_id").map(str::to_owned);
    out.tool_name = if role == "tool" { text("name").map(str::to_owned) } else { None };
    match fields.get("tool_calls").unwrap_or(&Value::Null) {
        Value::Null => {}
        Value::Array(calls) => {
            out.tool_calls =
                calls.iter().enumerate().map(|(at, call)| tool_call(at, call)).collect::<Result<_, _>>()?;
        }
        _ => return Err(bad("tool_calls must be an array")),
    }
    Ok(out)
}

/// A role that templates know; whoever else speaks is taken for the user.
#[must_use]
pub fn role(name: &str) -> &'static str {
    match name.to_lowercase().as_str() {
        "system" | "developer" => "system",
        "assistant" | "model" => "assistant",
        "tool" | "function" => "tool",
        _ => "user",
    }
}

/// A text, nothing, or parts.
fn content(value: &Value, message: &mut Message) -> Result<(), Failure> {
    match value {
        Value::Null => {}
        Value::String(text) => message.content.clone_from(text),
        Value::Array(parts) => parts.iter().try_for_each(|item| part(item, message))?,
        _ => return Err(bad("invalid message content type: a string or an array of parts is wanted")),
    }
    Ok(())
}

/// Adds one part of a content: text, a picture or a sound, in the words of chat and of responses; a note of
/// anything else.
pub(crate) fn part(part: &Value, message: &mut Message) -> Result<(), Failure> {
    let kind = part["type"].as_str().unwrap_or_default();
    match kind {
        "text" | "input_text" | "output_text" | "refusal" | "summary_text" | "reasoning_text" => {
            let field = if kind == "refusal" { "refusal" } else { "text" };
            let text = part[field].as_str().ok_or_else(|| bad(format!("a {kind} part needs a {field}")))?;
            message.push_text(text);
        }
        "image_url" | "input_image" => {
            let url = part["image_url"].as_str().or_else(|| part["image_url"]["url"].as_str());
            message.push_media(picture(url.unwrap_or_default())?);
        }
        "input_audio" => message.push_media(sound(&part["input_audio"])?),
        _ => message.push_text(&notes::of_part(part)),
    }
    Ok(())
}

/// A picture out of a data URL.
fn picture(url: &str) -> Result<Vec<u8>, Failure> {
    let wrong = || bad("invalid image input: a data URL with a base64 jpeg, png, gif or webp is wanted");
    let data = PICTURES.iter().find_map(|prefix| url.strip_prefix(prefix)).ok_or_else(wrong)?;
    STANDARD.decode(data.trim()).ok().filter(|bytes| !bytes.is_empty()).ok_or_else(wrong)
}

/// A sound: base64, or a data URL of it. Its bytes say what it is; a format that they contradict is an error
/// all the same.
fn sound(audio: &Value) -> Result<Vec<u8>, Failure> {
    let wrong = || bad("invalid audio input: input_audio with base64 data of a wav, mp3 or flac is wanted");
    if let Some(format) = audio["format"].as_str()
        && !["wav", "mp3", "flac"].contains(&format)
    {
        return Err(bad(format!(
            "audio of the format {format:?} is not supported: wav, mp3 or flac is wanted"
        )));
    }
    let data = audio["data"].as_str().ok_or_else(wrong)?;
    let data = match data.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").ok_or_else(wrong)?.1,
        None => data,
    };
    let bytes = STANDARD.decode(data.trim()).map_err(|_| wrong())?;
    if MediaKind::of(&bytes) == MediaKind::Sound { Ok(bytes) } else { Err(wrong()) }
}

fn tool_call(at: usize, call: &Value) -> Result<ToolCall, Failure> {
    let function = &call["function"];
    let name = function["name"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| bad("a tool call needs a function name"))?.to_owned();
    let id = call["id"].as_str().map_or_else(|| format!("call_{at:08}"), str::to_owned);
    let index = u32::try_from(at).unwrap_or(u32::MAX);
    Ok(ToolCall { index, id, name, arguments: arguments(&function["arguments"])? })
}

/// Arguments: an object in a string, or the object itself.
///
/// # Errors
/// 400 for anything else.
pub fn arguments(value: &Value) -> Result<Value, Failure> {
    let object = match value {
        Value::Null => Value::Object(Map::new()),
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        Value::String(text) => serde_json::from_str(text)
            .map_err(|error| bad(format!("invalid tool call arguments: {error}")))?,
        other => other.clone(),
    };
    if object.is_object() { Ok(object) } else { Err(bad("tool call arguments must be a JSON object")) }
}

/// Tools of a chat request: functions, with the schema of no parameters where they have none. A custom tool,
/// which takes any text, is a function of one string; tools that other servers run are left out.
pub(super) fn tools(values: Vec<Value>) -> Result<Vec<Value>, Failure> {
    values.into_iter().filter_map(|tool| function(tool).transpose()).collect()
}

fn function(mut tool: Value) -> Result<Option<Value>, Failure> {
    if tool["type"] == "custom" {
        let (name, description) = (&tool["custom"]["name"], &tool["custom"]["description"]);
        let text =
            json!({"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]});
        tool = json!({"function": {"name": name, "description": description, "parameters": text}});
    }
    if !tool["function"].is_object() {
        let hosted = tool["type"].as_str().is_some_and(|kind| kind != "function");
        return if hosted { Ok(None) } else { Err(bad(FORM)) };
    }
    if tool["function"]["name"].as_str().is_none_or(str::is_empty) {
        return Err(bad(FORM));
    }
    tool["type"] = json!("function");
    if !tool["function"]["parameters"].is_object() {
        tool["function"]["parameters"] = json!({"type": "object", "properties": {}});
    }
    Ok(Some(tool))
}

const FORM: &str = "a tool must have the form {\"type\":\"function\",\"function\":{\"name\":…}}";

/// `tool_choice`; one that names functions leaves only those in `tools`. A choice of a kind that is not known
/// is the model's.
pub(crate) fn tool_choice(value: &Value, tools: &mut Vec<Value>) -> Result<ToolChoice, Failure> {
    let word = |value: &Value| match value.as_str() {
        Some("none") => ToolChoice::None,
        Some("required" | "any") => ToolChoice::Required,
        _ => ToolChoice::Auto,
    };
    let choice = match value {
        Value::Object(_) if value["type"] == "allowed_tools" => {
            let allowed = Some(&value["allowed_tools"]).filter(|inner| inner.is_object()).unwrap_or(value);
            let names: Vec<&str> =
                allowed["tools"].as_array().into_iter().flatten().filter_map(chosen_name).collect();
            if !names.is_empty() {
                only(tools, &names)?;
            }
            word(&allowed["mode"])
        }
        Value::Object(_) => match chosen_name(value) {
            Some(name) => {
                only(tools, &[name])?;
                ToolChoice::Required
            }
            None if value["type"] == "function" => {
                return Err(bad("tool_choice needs the name of a function"));
            }
            None => ToolChoice::Auto,
        },
        other => word(other),
    };
    if choice == ToolChoice::Required && tools.is_empty() {
        return Err(bad("tool_choice wants a call, but there are no tools"));
    }
    Ok(choice)
}

/// The function that a choice names, plain or within a namespace.
fn chosen_name(choice: &Value) -> Option<&str> {
    choice["function"]["name"]
        .as_str()
        .or_else(|| choice["name"].as_str())
        .or_else(|| choice["custom"]["name"].as_str())
}

/// Leaves only the functions of these names, which within a namespace have its name in front.
fn only(tools: &mut Vec<Value>, names: &[&str]) -> Result<(), Failure> {
    let is_chosen = |tool: &Value| {
        let known = tool["function"]["name"].as_str().unwrap_or_default();
        names
            .iter()
            .any(|name| known == *name || known.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
    };
    tools.retain(is_chosen);
    if tools.is_empty() {
        return Err(bad(format!("tool_choice names {:?}, which is not among the tools", names.join(", "))));
    }
    Ok(())
}

/// What `response_format` asks for; what is none asks for nothing, as in Ollama.
pub(super) fn format(value: &Value) -> Format {
    match value["type"].as_str().map(str::trim) {
        Some("json_object") => match &value["schema"] {
            Value::Object(_) => Format::Schema(value["schema"].clone()),
            _ => Format::Json,
        },
        Some("json_schema") => match &value["json_schema"]["schema"] {
            Value::Object(schema) => Format::Schema(Value::Object(schema.clone())),
            _ => Format::Free,
        },
        _ => Format::Free,
    }
}

/// An effort of reasoning.
///
/// # Errors
/// 400 for a word that is none.
pub fn effort(word: &str) -> Result<Think, Failure> {
    let level = match word {
        "none" => return Ok(Think::Switch(false)),
        "minimal" | "low" => "low",
        "medium" => "medium",
        "high" => "high",
        "xhigh" | "ultra" | "max" => "max",
        other => {
            return Err(bad(format!(
                "invalid reasoning value: {other:?} (must be \"none\", \"minimal\", \"low\", \"medium\", \"high\", \
                 \"xhigh\" or \"max\")"
            )));
        }
    };
    Ok(Think::Level(level.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::Arc;

    fn one(value: Value) -> Result<Message, Failure> {
        messages(&[value]).map(|mut all| all.remove(0))
    }

    #[test]
    fn chat_content_comes_as_text_nothing_or_parts() {
        assert_eq!(one(json!({"role": "User", "content": "a"})).unwrap(), Message::text("user", "a"));
        assert_eq!(one(json!({"role": "developer", "content": "a"})).unwrap().role, "system");
        assert_eq!(one(json!({"role": "robot", "content": "a"})).unwrap().role, "user");
        let unknown = json!([{"type": "video"}, {"type": "input_file", "filename": "x.pdf"}, {"type": "text", "text": "b"}]);
        let noted = one(json!({"role": "user", "content": unknown})).unwrap().content;
        assert_eq!(noted, "[video: left out]\n[input_file: left out]\nb");
        assert_eq!(one(json!({"role": "assistant", "content": null})).unwrap().content, "");
        let parts = json!({"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "text", "text": "b"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
            {"type": "image_url", "image_url": "data:;base64,aGo="}]});
        let message = one(parts).unwrap();
        assert_eq!(message.content, "a\nb");
        assert_eq!(message.media, [b"hi".to_vec(), b"hj".to_vec()].map(Arc::new));
        assert_eq!(message.media_places, [3, 3]);
    }

    #[test]
    fn chat_bad_messages_are_400_that_name_them() {
        for bad in [
            json!(1),
            json!({"role": "user", "content": 1}),
            json!({"role": "user", "content": [{"type": "text"}]}),
            json!({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "aGs="}}]}),
            json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}),
            json!({"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,%%"}]}),
            json!({"role": "assistant", "tool_calls": {}}),
            json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
            json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}),
            json!({"role": "assistant", "tool_calls": [{"function": {}}]}),
        ] {
            let failure = one(bad.clone()).unwrap_err();
            assert_eq!(failure.status, 400, "{bad}");
            assert!(failure.message.starts_with("messages[0]: "), "{failure}");
        }
    }

    #[test]
    fn chat_a_result_knows_its_tool_by_the_last_call_of_its_id() {
        let call = |name: &str| {
            json!({"role": "assistant", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": name, "arguments": "{\"b\":1,\"a\":2}"}}]})
        };
        let all = messages(&[
            call("old"),
            call("new"),
            json!({"role": "tool", "tool_call_id": "c", "content": "r"}),
        ])
        .unwrap();
        assert_eq!(all[2].tool_name.as_deref(), Some("new"));
        assert_eq!(all[0].tool_calls[0].arguments.to_string(), r#"{"b":1,"a":2}"#, "order kept");
    }

    #[test]
    fn chat_tool_choice() {
        let all = || {
            vec![json!({"type": "function", "function": {"name": "a"}}), json!({"function": {"name": "b"}})]
        };
        let choose = |value: Value| {
            let mut tools = tools(all()).unwrap();
            tool_choice(&value, &mut tools).map(|choice| (choice, tools.len()))
        };
        assert_eq!(choose(Value::Null), Ok((ToolChoice::Auto, 2)));
        assert_eq!(choose(json!("none")), Ok((ToolChoice::None, 2)));
        assert_eq!(choose(json!("required")), Ok((ToolChoice::Required, 2)));
        let named = json!({"type": "function", "function": {"name": "b"}});
        assert_eq!(choose(named), Ok((ToolChoice::Required, 1)));
        for bad in [json!({"type": "function"}), json!({"type": "function", "function": {"name": "c"}})] {
            assert_eq!(choose(bad).unwrap_err().status, 400);
        }
        for unknown in [json!("maybe"), json!(3), json!({"type": "web_search_preview"})] {
            assert_eq!(choose(unknown), Ok((ToolChoice::Auto, 2)));
        }
        let allowed = |mode: &str| json!({"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "b"}]});
        assert_eq!(choose(allowed("auto")), Ok((ToolChoice::Auto, 1)));
        assert_eq!(choose(allowed("required")), Ok((ToolChoice::Required, 1)));
        assert!(tool_choice(&json!("required"), &mut Vec::new()).is_err());
        assert_eq!(tools(all()).unwrap()[1]["type"], "function");
    }

    #[test]
    fn tools_of_any_kind_are_taken() {
        let taken = tools(vec![
            json!({"type": "web_search"}),
            json!({"type": "custom", "custom": {"name": "patch", "description": "d"}}),
            json!({"type": "function", "function": {"name": "f"}}),
        ])
        .unwrap();
        let names: Vec<_> = taken.iter().map(|tool| tool["function"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["patch", "f"]);
        assert_eq!(taken[0]["function"]["parameters"]["required"], json!(["input"]));
        assert_eq!(taken[1]["function"]["parameters"], json!({"type": "object", "properties": {}}));
        let mut namespaced = vec![json!({"type": "function", "function": {"name": "ns.g"}})];
        let choice = tool_choice(&json!({"type": "function", "name": "g"}), &mut namespaced);
        assert_eq!(choice, Ok(ToolChoice::Required));
    }

    #[test]
    fn chat_formats_and_efforts() {
        assert_eq!(format(&Value::Null), Format::Free);
        assert_eq!(format(&json!({"type": "text"})), Format::Free);
        assert_eq!(format(&json!({"type": "json_object"})), Format::Json);
        let schema =
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}});
        assert_eq!(format(&schema), Format::Schema(json!({"type": "object"})));
        for unknown in [json!({"type": "xml"}), json!("text"), json!({"type": "json_schema"}), json!({})] {
            assert_eq!(format(&unknown), Format::Free, "{unknown}");
        }
        let level = |word: &str| Ok(Think::Level(word.to_owned()));
        assert_eq!(effort("none"), Ok(Think::Switch(false)));
        assert_eq!(
            (effort("minimal"), effort("xhigh"), effort("high")),
            (level("low"), level("max"), level("high"))
        );
        assert_eq!(effort("extreme").unwrap_err().status, 400);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let words = prop::sample::select(vec![
            "role",
            "user",
            "assistant",
            "tool",
            "content",
            "type",
            "text",
            "image_url",
            "input_audio",
            "data",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "{}",
            "data:;base64,",
            "json_schema",
            "",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            words.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((words.clone(), inner), 0..5).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn chat_any_json_is_judged_without_a_panic(value in any_json()) {
            let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            let _ = format(&value);
            for result in [messages(&list).err(), tools(list.clone()).err()] {
                prop_assert!(result.is_none_or(|failure| failure.status == 400));
            }
            let _ = tool_choice(&value, &mut list.clone());
        }
    }
}

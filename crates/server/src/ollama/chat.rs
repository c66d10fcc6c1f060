//! `POST /api/chat`

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::request::{self, Common};
use super::wire::{Native, Shape};
use crate::job::{ChatJob, Message, ToolCall};
use crate::state::Server;
use crate::{Failure, body, jobs, respond};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/chat", post(chat))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    #[serde(flatten)]
    common: Common,
    messages: Vec<WireMessage>,
    tools: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireMessage {
    role: String,
    content: Option<String>,
    thinking: Option<String>,
    images: Option<Vec<String>>,
    tool_calls: Option<Vec<WireCall>>,
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireCall {
    id: Option<String>,
    function: WireFunction,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireFunction {
    index: Option<u32>,
    name: String,
    arguments: Value,
}

async fn chat(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    match answer(&server, &bytes, received).await {
        Ok(response) => response,
        Err(failure) => respond::native_failure(&failure),
    }
}

async fn answer(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<Response, Failure> {
    let request: Request = body::request(bytes)?;
    if request.common.model.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    let Request { common, messages, tools } = request;
    let base = common.base(received)?;
    if messages.is_empty() {
        let rest = json!({"message": {"role": "assistant", "content": ""}});
        return Ok(request::load_or_unload(server, base, rest).await);
    }
    let messages = messages.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let job = ChatJob {
        tools: tools.into_iter().map(tool).collect::<Result<_, _>>()?,
        format: common.format()?,
        think: common.think()?,
        truncate: common.truncate.unwrap_or(true),
        ..ChatJob::new(base, messages)
    };
    let native = Native { model: common.model.clone(), shape: Shape::Chat };
    if common.debug_render_only {
        let rest = json!({"message": {"role": "assistant", "content": ""}});
        let images = job.messages.iter().map(|message| message.media.len()).sum();
        let work = Arc::clone(server);
        let text = async move { jobs::render_chat(&work, job).await };
        return Ok(request::rendered(server, native.model, rest, images, text).await);
    }
    let pieces = jobs::chat(server, job).await?;
    if common.stream.unwrap_or(true) {
        return Ok(respond::stream_pieces(server, pieces, native).await);
    }
    Ok(respond::whole(server, pieces, move |result| native.whole(&result)).await)
}

fn message(wire: WireMessage) -> Result<Message, Failure> {
    let role = match wire.role.to_lowercase().as_str() {
        "developer" => "system".to_owned(),
        "system" | "user" | "assistant" | "tool" => wire.role.to_lowercase(),
        other => return Err(Failure::bad_request(format!("invalid role: {other:?}"))),
    };
    let calls = wire.tool_calls.unwrap_or_default().into_iter().enumerate();
    let mut message = Message {
        role,
        content: wire.content.unwrap_or_default(),
        thinking: wire.thinking.filter(|text| !text.is_empty()),
        media: request::media(&wire.images.unwrap_or_default())?,
        tool_calls: calls.map(|(at, call)| tool_call(at, call)).collect::<Result<_, _>>()?,
        tool_name: wire.tool_name.filter(|name| !name.is_empty()),
        tool_call_id: wire.tool_call_id.filter(|id| !id.is_empty()),
        ..Message::default()
    };
    message.place_media();
    Ok(message)
}

/// Arguments are an object; other protocols' text that holds one is taken too.
fn tool_call(at: usize, call: WireCall) -> Result<ToolCall, Failure> {
    let bad = || Failure::bad_request("the arguments of a tool call must be a JSON object");
    let arguments = match call.function.arguments {
        Value::Null => Value::Object(Map::new()),
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        Value::String(text) => serde_json::from_str(&text).map_err(|_| bad())?,
        other => other,
    };
    if !arguments.is_object() {
        return Err(bad());
    }
    let index = call.function.index.unwrap_or_else(|| u32::try_from(at).unwrap_or(u32::MAX));
    let id = call.id.unwrap_or_else(|| format!("call_{at:08}"));
    Ok(ToolCall { index, id, name: call.function.name, arguments })
}

/// A tool as templates read it; `type` is `function` where it is left out.
fn tool(tool: Value) -> Result<Value, Failure> {
    let name = tool["function"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(Failure::bad_request(
            "a tool must have the form {\"type\":\"function\",\"function\":{\"name\":…}}",
        ));
    }
    let Value::Object(mut map) = tool else { return Ok(tool) };
    map.entry("type").or_insert_with(|| "function".into());
    Ok(Value::Object(map))
}

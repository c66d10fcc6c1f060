//! Input items as messages.
//!
//! Items of kinds that a template has no place for become notes ([`notes`]), so that a conversation with
//! another server goes on here.

use serde_json::Value;

use super::tools::{custom_arguments, joined};
use crate::job::{Message, ToolCall};
use crate::openai::content;
use crate::{Failure, notes};

fn bad(message: impl Into<String>) -> Failure {
    Failure::bad_request(message)
}

/// Adds what items mean.
///
/// # Errors
/// 400 that names the item.
pub(super) fn read(items: &[Value], messages: &mut Vec<Message>) -> Result<(), Failure> {
    for (at, item) in items.iter().enumerate() {
        add_item(item, messages).map_err(|failure| bad(format!("input[{at}]: {}", failure.message)))?;
    }
    // Reasoning that nothing followed.
    if messages.last().is_some_and(is_only_thinking) {
        messages.pop();
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
    let kind = item["type"].as_str().unwrap_or("message");
    match kind {
        "message" => add_message(item, messages)?,
        "function_call" => {
            let name = joined(item["namespace"].as_str().unwrap_or_default(), name_of(item)?);
            add_call(item, name, content::arguments(&item["arguments"])?, messages);
        }
        "custom_tool_call" => {
            let input = custom_arguments(item["input"].as_str().unwrap_or_default());
            add_call(item, name_of(item)?.to_owned(), input, messages);
        }
        "local_shell_call" => {
            let action = Some(&item["action"]).filter(|action| action.is_object()).cloned();
            add_call(
                item,
                "local_shell".to_owned(),
                action.unwrap_or_else(|| serde_json::json!({})),
                messages,
            );
        }
        "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
            add_output(item, messages)?;
        }
        "reasoning" => {
            let text = thought(item);
            if !text.is_empty() {
                messages.push(Message { thinking: Some(text), ..Message::text("assistant", "") });
            }
        }
        // The message that follows says what was found.
        "web_search_call" => {}
        _ => messages.push(Message::text("user", notes::of_part(item))),
    }
    Ok(())
}

fn name_of(item: &Value) -> Result<&str, Failure> {
    item["name"].as_str().filter(|name| !name.is_empty()).ok_or_else(|| bad("a call needs a name"))
}

fn add_call(item: &Value, name: String, arguments: Value, messages: &mut Vec<Message>) {
    let Some(message) = open_assistant(messages) else { return };
    let index = u32::try_from(message.tool_calls.len()).unwrap_or(u32::MAX);
    let id = item["call_id"].as_str().or_else(|| item["id"].as_str());
    let id = id.map_or_else(|| format!("call_{index:08}"), str::to_owned);
    message.tool_calls.push(ToolCall { index, id, name, arguments });
}

/// The result of a call; one that does not say of which is that of the first call without any.
fn add_output(item: &Value, messages: &mut Vec<Message>) -> Result<(), Failure> {
    let given = item["call_id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    let id = given.or_else(|| open_call(messages));
    let mut message = Message::text("tool", "");
    match &item["output"] {
        Value::Null => {}
        Value::String(text) => message.content.clone_from(text),
        Value::Array(parts) => parts.iter().try_for_each(|part| content::part(part, &mut message))?,
        other => message.content = other.to_string(),
    }
    message.tool_name = content::name_of_call(messages, id.as_deref());
    message.tool_call_id = id;
    messages.push(message);
    Ok(())
}

/// The first call of the latest answer that has no result yet.
fn open_call(messages: &[Message]) -> Option<String> {
    let at = messages.iter().rposition(|message| !message.tool_calls.is_empty())?;
    let (caller, results) = (messages.get(at)?, messages.get(at + 1..)?);
    let answered =
        |call: &&ToolCall| results.iter().any(|result| result.tool_call_id.as_ref() == Some(&call.id));
    caller.tool_calls.iter().find(|call| !answered(call)).map(|call| call.id.clone())
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
    let role = content::role(item["role"].as_str().unwrap_or_default());
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

//! Reading an answer while it is written: content, reasoning and whole tool calls.
//!
//! llama.cpp's parser reads the whole text so far at each step; what is new against what was already given
//! out becomes a delta. Invariants: text that was given out is never taken back; a tool call is given out
//! once, whole, with arguments that are valid JSON; tags of the template are in no delta.

use super::ChatPrompt;
use super::prompt::ChatParserState;
use super::shim;
use crate::sys;
use std::ffi::CString;
use std::hash::{BuildHasher, RandomState};

/// What to do with reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReasoningSplit {
    /// Give it out as [`ChatDelta::Reasoning`].
    #[default]
    Separate,
    /// Keep it to ourselves.
    Drop,
}

/// Something new in an answer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ChatDelta {
    /// More of the answer.
    Content(String),
    /// More of the reasoning.
    Reasoning(String),
    /// A whole tool call.
    ToolCall {
        /// Its place among the calls of the answer, from 0.
        index: usize,
        /// The model's own id, or a made-up one.
        id: String,
        /// The tool.
        name: String,
        /// A JSON object.
        arguments_json: String,
    },
}

/// Reads one answer.
pub struct ChatParser {
    state: ChatParserState,
    split: ReasoningSplit,
    text: String,
    reasoning: String,
    content: String,
    calls: usize,
}

#[derive(Debug, Default)]
struct Message {
    reasoning: String,
    content: String,
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    id: Option<String>,
    name: String,
    arguments: String,
}

impl ChatParser {
    /// A parser for the answer to `prompt`.
    #[must_use]
    pub fn new(prompt: &ChatPrompt, split: ReasoningSplit) -> Self {
        Self::of(prompt.parser.clone(), split)
    }

    /// The same from a prompt's parser state.
    #[must_use]
    pub fn of(state: ChatParserState, split: ReasoningSplit) -> Self {
        let mut parser = Self {
            state,
            split,
            text: String::new(),
            reasoning: String::new(),
            content: String::new(),
            calls: 0,
        };
        if parser.state.continued
            && let Some(message) = parser.parse(true)
        {
            parser.reasoning = message.reasoning;
            parser.content = message.content;
        }
        parser
    }

    /// Takes more of the answer, control tokens spelled out, and gives what is new.
    pub fn push(&mut self, text: &str) -> Vec<ChatDelta> {
        if text.is_empty() {
            return Vec::new();
        }
        // The shim reads C strings.
        self.text.extend(text.chars().map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }));
        let Some(mut message) = self.parse(true) else { return Vec::new() };
        // The last call may still grow.
        message.calls.pop();
        self.advance(message)
    }

    /// The answer is over. `complete`: the model ended it; otherwise it was cut (a limit, a stop string) and
    /// may hold half a tool call.
    pub fn finish(&mut self, complete: bool) -> Vec<ChatDelta> {
        let whole = if complete { self.parse(false) } else { None };
        let parsed = whole.or_else(|| self.parse(true));
        let nothing = self.reasoning.is_empty() && self.content.is_empty() && self.calls == 0;
        let mut message = parsed.unwrap_or_default();
        let empty = message.reasoning.is_empty() && message.content.is_empty() && message.calls.is_empty();
        if nothing && empty && !self.text.trim().is_empty() {
            // The text fits nothing that the template knows: better its plain words than silence.
            message.content = self.without_tags();
        }
        if message.calls.last().is_some_and(|call| !is_object(&call.arguments)) {
            message.calls.pop();
        }
        self.advance(message)
    }

    fn advance(&mut self, message: Message) -> Vec<ChatDelta> {
        let mut deltas = Vec::new();
        if let Some(more) = grow(&mut self.reasoning, &message.reasoning)
            && self.split == ReasoningSplit::Separate
        {
            deltas.push(ChatDelta::Reasoning(more));
        }
        deltas.extend(grow(&mut self.content, &message.content).map(ChatDelta::Content));
        for (index, call) in message.calls.into_iter().enumerate().skip(self.calls) {
            self.calls = index + 1;
            let arguments_json =
                if call.arguments.trim().is_empty() { "{}".to_owned() } else { call.arguments };
            deltas.push(ChatDelta::ToolCall {
                index,
                id: call.id.unwrap_or_else(call_id),
                name: call.name,
                arguments_json,
            });
        }
        deltas
    }

    fn without_tags(&self) -> String {
        let mut text = self.text.clone();
        for tag in self.state.tags.iter() {
            text = text.replace(tag.as_str(), "");
        }
        text.trim().to_owned()
    }

    /// None where llama.cpp finds no sense in the text (a shim error); what was shown stays.
    fn parse(&self, partial: bool) -> Option<Message> {
        let text = CString::new(self.text.as_str()).ok()?;
        let prompt = CString::new(self.state.generation_prompt.as_str()).ok()?;
        let params = sys::chat_shim_parse_params {
            text: text.as_ptr(),
            parser: self.state.raw.as_ref().map_or(std::ptr::null(), |raw| raw.as_ptr()),
            generation_prompt: prompt.as_ptr(),
            format: self.state.format,
            is_partial: partial,
        };
        let json = shim::text_of(self.text.len() * 2 + 512, |buffer, length, needed| {
            // SAFETY: strings and parser live for the call, the buffer comes with its length, the shim
            // catches exceptions.
            unsafe { sys::chat_shim_parse(&raw const params, buffer, length, needed) }
        })
        .ok()?;
        Some(message_of(serde_json::from_str(&json).ok()?))
    }
}

fn message_of(json: serde_json::Value) -> Message {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let calls = json["tool_calls"].as_array().map(|calls| {
        calls
            .iter()
            .map(|call| Call {
                id: call["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
                name: text(&call["function"]["name"]),
                arguments: text(&call["function"]["arguments"]),
            })
            .collect()
    });
    Message {
        reasoning: text(&json["reasoning_content"]),
        content: text(&json["content"]),
        calls: calls.unwrap_or_default(),
    }
}

fn is_object(arguments: &str) -> bool {
    arguments.trim().is_empty() || serde_json::from_str::<serde_json::Map<_, _>>(arguments).is_ok()
}

/// What `now` adds to `shown`; nothing where it does not begin with it.
fn grow(shown: &mut String, now: &str) -> Option<String> {
    let more = now.strip_prefix(shown.as_str()).filter(|more| !more.is_empty())?.to_owned();
    shown.push_str(&more);
    Some(more)
}

/// An id for a call of a model that gives none: unique enough to pair a result with its call.
fn call_id() -> String {
    format!("call_{:08x}", RandomState::new().hash_one(0_u8) as u32)
}

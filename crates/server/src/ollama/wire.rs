//! Native answers: one JSON object a line, the last one with `done` and the figures.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::job::{Piece, Summary, TokenLogprob, ToolCall};
use crate::jobs::Collected;
use crate::openai::entry;
use crate::respond::{self, NDJSON, Wire};
use crate::{Failure, time};

/// Which endpoint's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `response` and `thinking` beside each other.
    Generate,
    /// Both within `message`.
    Chat,
}

/// The front end's side of one answer.
pub(super) struct Native {
    pub model: String,
    pub shape: Shape,
}

/// The text of one object.
#[derive(Default)]
struct Text<'a> {
    content: &'a str,
    thinking: &'a str,
    tool_calls: &'a [ToolCall],
    logprobs: &'a [TokenLogprob],
}

#[derive(Serialize)]
struct Object<'a> {
    model: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a [i32]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Value>,
    #[serde(flatten)]
    figures: Option<Figures>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

#[derive(Serialize)]
struct Figures {
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: u32,
    prompt_eval_duration: u64,
    eval_count: u32,
    eval_duration: u64,
    /// Not Ollama's: tokens of the prompt that were in the cache.
    prompt_eval_cached: u32,
}

impl Native {
    fn object<'a>(&'a self, text: &Text<'a>, summary: Option<&'a Summary>) -> Object<'a> {
        let chat = self.shape == Shape::Chat;
        let message = Message {
            role: "assistant",
            content: text.content,
            thinking: text.thinking,
            tool_calls: text.tool_calls.iter().map(tool_call).collect(),
        };
        Object {
            model: &self.model,
            created_at: time::now_utc(),
            response: (!chat).then_some(text.content),
            thinking: if chat { "" } else { text.thinking },
            message: chat.then_some(message),
            done: summary.is_some(),
            done_reason: summary.map(|summary| summary.reason.native()),
            context: summary.and_then(|summary| summary.context.as_deref()),
            logprobs: text.logprobs.iter().map(logprob).collect(),
            figures: summary.map(figures),
        }
    }

    fn line(&self, text: &Text<'_>, summary: Option<&Summary>) -> Bytes {
        line(&self.object(text, summary))
    }

    /// The answer in one object.
    pub fn whole(&self, result: &Result<Collected, Failure>) -> Response {
        match result {
            Err(failure) => respond::native_failure(failure),
            Ok(all) => {
                let text = Text {
                    content: &all.content,
                    thinking: &all.thinking,
                    tool_calls: &all.tool_calls,
                    logprobs: &all.logprobs,
                };
                respond::json(StatusCode::OK, &self.object(&text, Some(&all.summary)))
            }
        }
    }
}

impl Wire for Native {
    fn piece(&mut self, piece: Piece) -> Bytes {
        match piece {
            Piece::Started { .. } | Piece::Progress { .. } => Bytes::new(),
            Piece::Thinking { text, logprobs } => {
                self.line(&Text { thinking: &text, logprobs: &logprobs, ..Text::default() }, None)
            }
            Piece::Content { text, logprobs } => {
                self.line(&Text { content: &text, logprobs: &logprobs, ..Text::default() }, None)
            }
            Piece::ToolCall(call) => self.line(&Text { tool_calls: &[call], ..Text::default() }, None),
            Piece::Done(summary) => self.line(&Text::default(), Some(&summary)),
            Piece::Failed(failure) => line(&json!({"error": failure.message})),
        }
    }

    fn heartbeat(&mut self) -> Bytes {
        self.line(&Text::default(), None)
    }

    fn content_type(&self) -> &'static str {
        NDJSON
    }

    fn failure(&self, failure: &Failure) -> Response {
        respond::native_failure(failure)
    }
}

/// A value as a line of its own.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a response could not be serialised");
        b"{\"error\":\"the response could not be serialised\"}".to_vec()
    });
    bytes.push(b'\n');
    Bytes::from(bytes)
}

fn figures(summary: &Summary) -> Figures {
    Figures {
        total_duration: time::nanos(summary.total),
        load_duration: time::nanos(summary.load),
        prompt_eval_count: summary.prompt_tokens,
        prompt_eval_duration: time::nanos(summary.prefill),
        eval_count: summary.generated_tokens,
        eval_duration: time::nanos(summary.decode),
        prompt_eval_cached: summary.reused_tokens,
    }
}

fn tool_call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "function": {"index": call.index, "name": call.name, "arguments": call.arguments},
    })
}

fn logprob(token: &TokenLogprob) -> Value {
    let mut value = entry(&token.bytes, token.logprob);
    if !token.top.is_empty() {
        value["top_logprobs"] = token.top.iter().map(|(bytes, logprob)| entry(bytes, *logprob)).collect();
    }
    value
}

//! Answers as content blocks: whole messages, and events of one block after another.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::Failure;
use crate::job::{DoneReason, Piece, Summary, ToolCall};
use crate::jobs::Collected;
use crate::openai::random_hex;
use crate::refusal;
use crate::respond::{self, Wire};

/// One answer on its way.
pub(super) struct Answer {
    id: String,
    model: String,
    /// The stop strings of the request: that a template's own one came is the end of a turn.
    stop_sequences: Vec<String>,
    prompt_tokens: u32,
    /// The kind of the block that is open, if one is.
    open: Option<&'static str>,
    /// Blocks that were opened.
    blocks: usize,
    called: bool,
}

impl Answer {
    pub fn new(model: String, stop_sequences: Vec<String>) -> Self {
        let id = format!("msg_{}", random_hex(24));
        Self { id, model, stop_sequences, prompt_tokens: 0, open: None, blocks: 0, called: false }
    }

    /// The whole answer as one message.
    pub fn whole(mut self, result: Result<Collected, Failure>) -> Response {
        let answer = match result {
            Ok(answer) => answer,
            Err(failure) => return refusal::anthropic(&failure),
        };
        self.called = !answer.tool_calls.is_empty();
        let mut content = Vec::new();
        if !answer.thinking.is_empty() {
            content.push(json!({"type": "thinking", "thinking": answer.thinking, "signature": ""}));
        }
        if !answer.content.is_empty() {
            content.push(json!({"type": "text", "text": answer.content}));
        }
        let calls = answer.tool_calls.iter().map(
            |call| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}),
        );
        content.extend(calls);
        let (reason, sequence) = self.stop(&answer.summary);
        let mut message = self.message(content);
        message["stop_reason"] = json!(reason);
        message["stop_sequence"] = json!(sequence);
        message["usage"] = usage(&answer.summary);
        respond::json(StatusCode::OK, &message)
    }

    fn message(&self, content: Vec<Value>) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": self.prompt_tokens, "output_tokens": 0},
        })
    }

    fn stop<'a>(&self, summary: &'a Summary) -> (&'static str, Option<&'a str>) {
        match &summary.reason {
            _ if self.called => ("tool_use", None),
            DoneReason::StopString(text) if self.stop_sequences.contains(text) => {
                ("stop_sequence", Some(text))
            }
            DoneReason::Stop | DoneReason::StopString(_) => ("end_turn", None),
            DoneReason::Length => ("max_tokens", None),
        }
    }

    /// Makes `kind` the open block.
    fn turn_to(&mut self, kind: &'static str, block: &Value, out: &mut String) {
        if self.open == Some(kind) {
            return;
        }
        self.close(out);
        event(out, &json!({"type": "content_block_start", "index": self.blocks, "content_block": block}));
        self.open = Some(kind);
        self.blocks += 1;
    }

    fn close(&mut self, out: &mut String) {
        if self.open.take().is_some() {
            event(out, &json!({"type": "content_block_stop", "index": self.blocks - 1}));
        }
    }

    fn delta(&self, delta: &Value, out: &mut String) {
        event(
            out,
            &json!({"type": "content_block_delta", "index": self.blocks.saturating_sub(1), "delta": delta}),
        );
    }

    fn call(&mut self, call: &ToolCall, out: &mut String) {
        self.called = true;
        self.close(out);
        let block = json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}});
        self.turn_to("tool_use", &block, out);
        self.delta(&json!({"type": "input_json_delta", "partial_json": call.arguments.to_string()}), out);
        self.close(out);
    }

    fn done(&mut self, summary: &Summary, out: &mut String) {
        self.close(out);
        let (reason, sequence) = self.stop(summary);
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        event(out, &json!({"type": "message_delta", "delta": delta, "usage": usage(summary)}));
        event(out, &json!({"type": "message_stop"}));
    }
}

impl Wire for Answer {
    fn piece(&mut self, piece: Piece) -> Bytes {
        let mut out = String::new();
        match piece {
            Piece::Started { prompt_tokens } => {
                self.prompt_tokens = prompt_tokens;
                event(&mut out, &json!({"type": "message_start", "message": self.message(Vec::new())}));
            }
            Piece::Progress { .. } => {}
            Piece::Thinking { text, .. } => {
                let block = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.turn_to("thinking", &block, &mut out);
                self.delta(&json!({"type": "thinking_delta", "thinking": text}), &mut out);
            }
            Piece::Content { text, .. } if text.is_empty() => {}
            Piece::Content { text, .. } => {
                self.turn_to("text", &json!({"type": "text", "text": ""}), &mut out);
                self.delta(&json!({"type": "text_delta", "text": text}), &mut out);
            }
            Piece::ToolCall(call) => self.call(&call, &mut out),
            Piece::Done(summary) => self.done(&summary, &mut out),
            Piece::Failed(failure) => event(&mut out, &refusal::anthropic_error(&failure)),
        }
        Bytes::from(out)
    }

    fn heartbeat(&mut self) -> Bytes {
        Bytes::from_static(b"event: ping\ndata: {\"type\":\"ping\"}\n\n")
    }

    fn failure(&self, failure: &Failure) -> Response {
        refusal::anthropic(failure)
    }
}

fn event(out: &mut String, value: &Value) {
    let kind = value["type"].as_str().unwrap_or_default();
    out.push_str(&format!("event: {kind}\ndata: {value}\n\n"));
}

fn usage(summary: &Summary) -> Value {
    json!({"input_tokens": summary.prompt_tokens, "output_tokens": summary.generated_tokens})
}

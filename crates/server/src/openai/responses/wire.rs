//! Items as one response object, or as events with a rising `sequence_number`.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::items::{Item, Kind, part, usage};
use super::tools::{Called, ToolNames};
use crate::ids::random_hex;
use crate::job::{DoneReason, Piece, Summary, ToolCall};
use crate::jobs::Collected;
use crate::refusal::{self, TOO_LONG};
use crate::respond::{self, Wire};
use crate::state::Server;
use crate::time::unix_seconds_now;
use crate::{Cause, Failure};

/// Where a complete answer is remembered, behind the conversation that led to it.
#[derive(Clone)]
pub(super) struct Remembered {
    pub server: Arc<Server>,
    pub items: Vec<Value>,
}

/// One response on its way.
#[derive(Clone)]
pub(super) struct Answer {
    id: String,
    created: u64,
    echo: Map<String, Value>,
    names: ToolNames,
    memory: Option<Remembered>,
    output: Vec<Item>,
    /// The last item of `output` may still grow.
    open: bool,
    sequence: u64,
}

impl Answer {
    /// An answer that repeats `echo`; `memory` keeps it when it is complete.
    pub fn new(echo: Map<String, Value>, names: ToolNames, memory: Option<Remembered>) -> Self {
        let id = format!("resp_{}", random_hex(32));
        Self {
            id,
            created: unix_seconds_now(),
            echo,
            names,
            memory,
            output: Vec::new(),
            open: false,
            sequence: 0,
        }
    }

    fn call(&self, call: &ToolCall) -> Kind {
        Kind::Call(call.id.clone(), self.names.called(call))
    }

    /// The whole answer as one object.
    pub fn whole(mut self, result: Result<Collected, Failure>) -> Response {
        let answer = match result {
            Ok(answer) => answer,
            Err(failure) => return refusal::openai(&failure),
        };
        if !answer.thinking.is_empty() {
            self.output.push(Item::new(Kind::Reasoning(answer.thinking)));
        }
        if !answer.content.is_empty() || answer.tool_calls.is_empty() {
            self.output.push(Item::new(Kind::Message(answer.content)));
        }
        let calls: Vec<Item> = answer.tool_calls.iter().map(|call| Item::new(self.call(call))).collect();
        self.output.extend(calls);
        respond::json(StatusCode::OK, &self.ended(&answer.summary))
    }

    fn response(&self, status: &str) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("id".to_owned(), json!(self.id));
        out.insert("object".to_owned(), json!("response"));
        out.insert("created_at".to_owned(), json!(self.created));
        out.insert("completed_at".to_owned(), Value::Null);
        out.insert("status".to_owned(), json!(status));
        out.insert("error".to_owned(), Value::Null);
        out.insert("incomplete_details".to_owned(), Value::Null);
        out.extend(self.echo.clone());
        out.insert("output".to_owned(), self.output.iter().map(Item::whole).collect());
        out.insert("usage".to_owned(), Value::Null);
        out
    }

    fn ended(&mut self, summary: &Summary) -> Value {
        if let Some(Remembered { server, mut items }) = self.memory.take() {
            items.extend(self.output.iter().map(Item::whole));
            server.recent.remember(self.id.clone(), items);
        }
        let cut = summary.reason == DoneReason::Length;
        let mut out = self.response(if cut { "incomplete" } else { "completed" });
        out.insert("completed_at".to_owned(), json!(unix_seconds_now()));
        out.insert("usage".to_owned(), usage(summary));
        if cut {
            out.insert("incomplete_details".to_owned(), json!({"reason": "max_output_tokens"}));
        }
        Value::Object(out)
    }

    fn event(&mut self, kind: &str, fields: Value, out: &mut String) {
        let mut event = Map::new();
        event.insert("type".to_owned(), json!(kind));
        event.insert("sequence_number".to_owned(), json!(self.sequence));
        if let Value::Object(fields) = fields {
            event.extend(fields);
        }
        self.sequence += 1;
        out.push_str(&format!("event: {kind}\ndata: {}\n\n", Value::Object(event)));
    }

    /// Where the open item is, for its events.
    fn place(&self) -> (String, usize) {
        let id = self.output.last().map(|item| item.id.clone()).unwrap_or_default();
        (id, self.output.len().saturating_sub(1))
    }

    fn begin(&mut self, kind: Kind, out: &mut String) {
        self.close(out);
        let item = Item::new(kind);
        let begun = item.begun();
        let kind = item.kind.clone();
        self.output.push(item);
        self.open = true;
        let (id, at) = self.place();
        self.event("response.output_item.added", json!({"output_index": at, "item": begun}), out);
        match kind {
            Kind::Reasoning(_) => {
                let part = json!({"type": "summary_text", "text": ""});
                let fields = json!({"item_id": id, "output_index": at, "summary_index": 0, "part": part});
                self.event("response.reasoning_summary_part.added", fields, out);
            }
            Kind::Message(_) => {
                let fields = json!({"item_id": id, "output_index": at, "content_index": 0, "part": part("")});
                self.event("response.content_part.added", fields, out);
            }
            Kind::Call(..) => {}
        }
    }

    fn close(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let Some(item) = self.output.last().cloned() else { return };
        let (id, at) = self.place();
        match &item.kind {
            Kind::Reasoning(text) => {
                let fields = json!({"item_id": id, "output_index": at, "summary_index": 0, "text": text});
                self.event("response.reasoning_summary_text.done", fields, out);
                let part = json!({"type": "summary_text", "text": text});
                let fields = json!({"item_id": id, "output_index": at, "summary_index": 0, "part": part});
                self.event("response.reasoning_summary_part.done", fields, out);
            }
            Kind::Message(text) => {
                let fields = json!({"item_id": id, "output_index": at, "content_index": 0, "text": text, "logprobs": []});
                self.event("response.output_text.done", fields, out);
                let fields =
                    json!({"item_id": id, "output_index": at, "content_index": 0, "part": part(text)});
                self.event("response.content_part.done", fields, out);
            }
            Kind::Call(_, Called::Function { name, arguments, .. }) => {
                let fields = json!({"item_id": id, "output_index": at, "delta": arguments});
                self.event("response.function_call_arguments.delta", fields, out);
                let fields = json!({"item_id": id, "output_index": at, "name": name, "arguments": arguments});
                self.event("response.function_call_arguments.done", fields, out);
            }
            Kind::Call(_, Called::Custom { input, .. }) => {
                let fields = json!({"item_id": id, "output_index": at, "delta": input});
                self.event("response.custom_tool_call_input.delta", fields, out);
                let fields = json!({"item_id": id, "output_index": at, "input": input});
                self.event("response.custom_tool_call_input.done", fields, out);
            }
        }
        let fields = json!({"output_index": at, "item": item.whole()});
        self.event("response.output_item.done", fields, out);
    }

    fn text(&mut self, text: &str, reasoning: bool, out: &mut String) {
        let fits = self.open
            && self.output.last().is_some_and(|item| match item.kind {
                Kind::Reasoning(_) => reasoning,
                Kind::Message(_) => !reasoning,
                Kind::Call(..) => false,
            });
        if !fits {
            let kind = if reasoning { Kind::Reasoning } else { Kind::Message };
            self.begin(kind(String::new()), out);
        }
        if let Some(Item { kind: Kind::Reasoning(all) | Kind::Message(all), .. }) = self.output.last_mut() {
            all.push_str(text);
        }
        let (id, at) = self.place();
        if reasoning {
            let fields = json!({"item_id": id, "output_index": at, "summary_index": 0, "delta": text});
            self.event("response.reasoning_summary_text.delta", fields, out);
        } else {
            let fields =
                json!({"item_id": id, "output_index": at, "content_index": 0, "delta": text, "logprobs": []});
            self.event("response.output_text.delta", fields, out);
        }
    }
}

/// OpenAI's sentence about an input that is too long.
const TOO_LONG_MESSAGE: &str =
    "Your input exceeds the context window of this model. Please adjust your input and try again.";

/// Why a response failed, as its `error`.
fn error(failure: &Failure) -> Value {
    match failure.cause {
        Cause::PromptTooLong { .. } => json!({"code": TOO_LONG, "message": TOO_LONG_MESSAGE}),
        Cause::Other => json!({"code": "server_error", "message": failure.message}),
    }
}

impl Wire for Answer {
    fn piece(&mut self, piece: Piece) -> Bytes {
        let mut out = String::new();
        match piece {
            Piece::Started { .. } => {
                for kind in ["response.created", "response.in_progress"] {
                    let response = Value::Object(self.response("in_progress"));
                    self.event(kind, json!({"response": response}), &mut out);
                }
            }
            Piece::Progress { .. } => {}
            Piece::Thinking { text, .. } => self.text(&text, true, &mut out),
            Piece::Content { text, .. } if text.is_empty() => {}
            Piece::Content { text, .. } => self.text(&text, false, &mut out),
            Piece::ToolCall(call) => {
                self.begin(self.call(&call), &mut out);
                self.close(&mut out);
            }
            Piece::Done(summary) => {
                self.close(&mut out);
                let cut = summary.reason == DoneReason::Length;
                let kind = if cut { "response.incomplete" } else { "response.completed" };
                let response = self.ended(&summary);
                self.event(kind, json!({"response": response}), &mut out);
            }
            Piece::Failed(failure) => {
                self.close(&mut out);
                let mut response = self.response("failed");
                response.insert("error".to_owned(), error(&failure));
                self.event("response.failed", json!({"response": Value::Object(response)}), &mut out);
            }
        }
        Bytes::from(out)
    }

    fn failure(&self, failure: &Failure) -> Response {
        if failure.cause == Cause::Other {
            return refusal::openai(failure);
        }
        // A stream of OpenAI's begins before it is known that the input is too long, and that is how agents
        // expect to learn it.
        let mut stream = self.clone();
        let mut bytes = stream.piece(Piece::Started { prompt_tokens: 0 }).to_vec();
        bytes.extend(stream.piece(Piece::Failed(failure.clone())));
        respond::with_type(StatusCode::OK, self.content_type(), Body::from(bytes))
    }
}

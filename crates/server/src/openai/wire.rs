//! Answers of chat and text completions: whole objects and streams of chunks.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::job::{DoneReason, Piece, Summary, TokenLogprob, ToolCall};
use crate::jobs::Collected;
use crate::refusal;
use crate::respond::{self, Wire};
use crate::time::unix_seconds_now;

/// Bytes of a server-sent event that holds `value`.
fn event(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

/// Which of the two protocols an answer is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// One answer on its way.
pub(super) struct Answer {
    pub shape: Shape,
    pub id: String,
    pub model: String,
    pub created: u64,
    /// The stream ends with a chunk of token counts.
    pub include_usage: bool,
    /// Log-probabilities are wanted.
    pub logprobs: bool,
    called: bool,
    /// Characters of text so far, for `text_offset`.
    offset: usize,
}

impl Answer {
    pub fn new(shape: Shape, model: String, include_usage: bool, logprobs: bool) -> Self {
        let prefix = if shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{}", super::random_hex(12));
        Self {
            shape,
            id,
            model,
            created: unix_seconds_now(),
            include_usage,
            logprobs,
            called: false,
            offset: 0,
        }
    }

    fn object(&self, chunk: bool) -> Map<String, Value> {
        let kind = match (self.shape, chunk) {
            (Shape::Chat, true) => "chat.completion.chunk",
            (Shape::Chat, false) => "chat.completion",
            (Shape::Text, _) => "text_completion",
        };
        let mut out = Map::new();
        out.insert("id".to_owned(), json!(self.id));
        out.insert("object".to_owned(), json!(kind));
        out.insert("created".to_owned(), json!(self.created));
        out.insert("model".to_owned(), json!(self.model));
        out.insert("system_fingerprint".to_owned(), json!("fp_ollama"));
        out
    }

    /// The whole answer as one object.
    pub fn whole(mut self, result: Result<Collected, Failure>) -> Response {
        let answer = match result {
            Ok(answer) => answer,
            Err(failure) => return refusal::openai(&failure),
        };
        self.called = !answer.tool_calls.is_empty();
        let finish = self.finish(&answer.summary);
        let logprobs = self.logprobs(answer.logprobs);
        let mut choice = match self.shape {
            Shape::Text => json!({"text": answer.content, "index": 0}),
            Shape::Chat => {
                let mut message = json!({"role": "assistant", "content": answer.content});
                if !answer.thinking.is_empty() {
                    message["reasoning"] = json!(answer.thinking);
                    message["reasoning_content"] = json!(answer.thinking);
                }
                if self.called {
                    message["tool_calls"] = answer.tool_calls.iter().map(whole_call).collect();
                }
                json!({"index": 0, "message": message})
            }
        };
        choice["logprobs"] = logprobs;
        choice["finish_reason"] = json!(finish);
        let mut out = self.object(false);
        out.insert("choices".to_owned(), json!([choice]));
        out.insert("usage".to_owned(), usage(&answer.summary));
        out.insert("timings".to_owned(), super::timings::of(&answer.summary));
        respond::json(StatusCode::OK, &out)
    }

    fn finish(&self, summary: &Summary) -> &'static str {
        match summary.reason {
            _ if self.called => "tool_calls",
            DoneReason::Stop | DoneReason::StopString(_) => "stop",
            DoneReason::Length => "length",
        }
    }

    fn chunk(&self, choice: Value) -> Map<String, Value> {
        let mut out = self.object(true);
        out.insert("choices".to_owned(), json!([choice]));
        out
    }

    fn delta(&self, delta: Value) -> Vec<u8> {
        event(&Value::Object(self.chunk(json!({"index": 0, "delta": delta, "finish_reason": null}))))
    }

    fn logprobs(&mut self, tokens: Vec<TokenLogprob>) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        match self.shape {
            Shape::Chat => json!({"content": tokens.iter().map(chat_logprob).collect::<Vec<_>>()}),
            Shape::Text => self.text_logprobs(&tokens),
        }
    }

    fn text_logprobs(&mut self, tokens: &[TokenLogprob]) -> Value {
        let mut offsets = Vec::with_capacity(tokens.len());
        for token in tokens {
            offsets.push(self.offset);
            self.offset += token.token.chars().count();
        }
        let top = |token: &TokenLogprob| -> Value {
            token
                .top
                .iter()
                .map(|(bytes, logprob)| (String::from_utf8_lossy(bytes).into_owned(), json!(logprob)))
                .collect::<Map<_, _>>()
                .into()
        };
        json!({
            "tokens": tokens.iter().map(|token| token.token.as_str()).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
            "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }

    fn content(&mut self, text: &str, tokens: Vec<TokenLogprob>, reasoning: bool) -> Vec<u8> {
        let logprobs = self.logprobs(tokens);
        if self.shape == Shape::Text {
            if reasoning {
                return Vec::new();
            }
            let choice = json!({"text": text, "index": 0, "logprobs": logprobs, "finish_reason": null});
            return event(&Value::Object(self.chunk(choice)));
        }
        let delta = if reasoning {
            json!({"reasoning": text, "reasoning_content": text})
        } else {
            json!({"content": text})
        };
        let mut choice = json!({"index": 0, "delta": delta, "finish_reason": null});
        if !logprobs.is_null() {
            choice["logprobs"] = logprobs;
        }
        event(&Value::Object(self.chunk(choice)))
    }

    fn done(&self, summary: &Summary) -> Vec<u8> {
        let finish = self.finish(summary);
        let choice = match self.shape {
            Shape::Chat => json!({"index": 0, "delta": {}, "finish_reason": finish}),
            Shape::Text => json!({"text": "", "index": 0, "logprobs": null, "finish_reason": finish}),
        };
        let mut last = self.chunk(choice);
        last.insert("timings".to_owned(), super::timings::of(summary));
        let mut bytes = event(&Value::Object(last));
        if self.include_usage {
            let mut counts = self.object(true);
            counts.insert("choices".to_owned(), json!([]));
            counts.insert("usage".to_owned(), usage(summary));
            bytes.extend(event(&Value::Object(counts)));
        }
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        bytes
    }
}

impl Wire for Answer {
    fn piece(&mut self, piece: Piece) -> Bytes {
        let bytes = match piece {
            Piece::Started { .. } if self.shape == Shape::Chat => {
                self.delta(json!({"role": "assistant", "content": ""}))
            }
            Piece::Started { .. } => Vec::new(),
            Piece::Progress { processed, total, reused, elapsed } => {
                let mut chunk = match self.shape {
                    Shape::Chat => self.chunk(json!({"index": 0, "delta": {}, "finish_reason": null})),
                    Shape::Text => self.chunk(json!({"text": "", "index": 0, "finish_reason": null})),
                };
                let progress = json!({
                    "total": total, "cache": reused, "processed": processed,
                    "time_ms": super::timings::millis(elapsed),
                });
                chunk.insert("prompt_progress".to_owned(), progress);
                event(&Value::Object(chunk))
            }
            Piece::Thinking { text, logprobs } => self.content(&text, logprobs, true),
            Piece::Content { text, logprobs } => self.content(&text, logprobs, false),
            Piece::ToolCall(_) if self.shape == Shape::Text => Vec::new(),
            Piece::ToolCall(call) => {
                self.called = true;
                self.delta(json!({"tool_calls": [whole_call(&call)]}))
            }
            Piece::Done(summary) => self.done(&summary),
            Piece::Failed(failure) => event(&json!({"error": crate::refusal::openai_error(&failure)})),
        };
        Bytes::from(bytes)
    }

    fn failure(&self, failure: &Failure) -> Response {
        refusal::openai(failure)
    }
}

fn whole_call(call: &ToolCall) -> Value {
    json!({
        "index": call.index,
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments.to_string()},
    })
}

/// A token of log-probabilities: its text, and the bytes that it really is.
pub(crate) fn entry(bytes: &[u8], logprob: f32) -> Value {
    json!({"token": String::from_utf8_lossy(bytes), "logprob": logprob, "bytes": bytes})
}

fn chat_logprob(token: &TokenLogprob) -> Value {
    let mut out = entry(&token.bytes, token.logprob);
    out["top_logprobs"] = token.top.iter().map(|(bytes, logprob)| entry(bytes, *logprob)).collect();
    out
}

fn usage(summary: &Summary) -> Value {
    let mut details = json!({"reasoning_tokens": summary.reasoning_tokens});
    if summary.drafts > 0 {
        details["accepted_prediction_tokens"] = json!(summary.drafts_accepted);
        details["rejected_prediction_tokens"] = json!(summary.drafts.saturating_sub(summary.drafts_accepted));
    }
    json!({
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.generated_tokens,
        "total_tokens": summary.prompt_tokens.saturating_add(summary.generated_tokens),
        "prompt_tokens_details": {"cached_tokens": summary.reused_tokens},
        "completion_tokens_details": details,
    })
}

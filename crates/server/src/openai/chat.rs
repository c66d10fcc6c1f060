//! `POST /v1/chat/completions`

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::content;
use super::wire::{Answer, Shape};
use crate::job::{ChatJob, JobBase};
use crate::options::{self, Options};
use crate::state::Server;
use crate::{Failure, body, jobs, refusal, respond};

/// Most alternatives that log-probabilities may come with.
const MOST_TOP_LOGPROBS: i64 = 20;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/v1/chat/completions", post(chat)).route("/chat/completions", post(chat))
}

/// What chat and text completions have in common.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Common {
    pub model: String,
    pub stream: Option<bool>,
    stream_options: StreamOptions,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    seed: Value,
    stop: Value,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    return_progress: Option<bool>,
    prediction: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    #[serde(flatten)]
    common: Common,
    messages: Vec<Value>,
    tools: Vec<Value>,
    tool_choice: Value,
    parallel_tool_calls: Option<bool>,
    response_format: Value,
    reasoning_effort: Option<String>,
    reasoning: Value,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
}

impl Common {
    /// Whether a stream ends with token counts.
    pub fn include_usage(&self) -> bool {
        self.stream_options.include_usage.unwrap_or(false)
    }

    /// The job; this protocol's defaults are temperature 1 and top-p 1.
    pub fn base(&self, received: Instant) -> Result<JobBase, Failure> {
        let options = Options {
            num_predict: self.max_completion_tokens.or(self.max_tokens),
            temperature: Some(self.temperature.unwrap_or(1.0)),
            top_p: Some(self.top_p.unwrap_or(1.0)),
            top_k: self.top_k,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: match &self.seed {
                Value::Null => None,
                given => Some(
                    options::seed(given).ok_or_else(|| Failure::bad_request("seed must be an integer"))?,
                ),
            },
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            stop: stop(&self.stop)?,
            ..Options::default()
        };
        Ok(JobBase {
            options,
            progress: self.return_progress.unwrap_or(false),
            prediction: prediction(&self.prediction)?,
            grows: true,
            received,
            ..JobBase::new(self.model.clone())
        })
    }
}

/// The text of a predicted output: a string, or parts of type `text`.
fn prediction(value: &Value) -> Result<Option<String>, Failure> {
    let wrong = || {
        let what =
            "prediction must be {\"type\": \"content\", \"content\": a string or an array of text parts}";
        Failure::bad_request(what)
    };
    if value.is_null() {
        return Ok(None);
    }
    if value.get("type").and_then(Value::as_str) != Some("content") {
        return Err(wrong());
    }
    match value.get("content") {
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| part.get("text").and_then(Value::as_str).map(str::to_owned);
            parts.iter().map(|part| text(part).ok_or_else(wrong)).collect::<Result<String, _>>().map(Some)
        }
        _ => Err(wrong()),
    }
}

/// A string, or several.
fn stop(value: &Value) -> Result<Option<Vec<String>>, Failure> {
    let wrong = || Failure::bad_request("stop must be a string or an array of strings");
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(vec![text.clone()])),
        Value::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong));
            texts.collect::<Result<_, _>>().map(Some)
        }
        _ => Err(wrong()),
    }
}

/// The job of a request's body.
///
/// # Errors
/// 400.
pub(super) fn job(request: Request, received: Instant) -> Result<ChatJob, Failure> {
    if request.common.model.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    if request.messages.is_empty() {
        return Err(Failure::bad_request("[] is too short - 'messages'"));
    }
    let mut base = request.common.base(received)?;
    let top = request.top_logprobs.unwrap_or(0);
    if !(0..=MOST_TOP_LOGPROBS).contains(&top) {
        return Err(Failure::bad_request("top_logprobs must be between 0 and 20"));
    }
    base.logprobs = request.logprobs.unwrap_or(false).then(|| u32::try_from(top).unwrap_or(0));
    let effort = request.reasoning_effort.as_deref().or_else(|| request.reasoning["effort"].as_str());
    let mut tools = content::tools(request.tools)?;
    let tool_choice = content::tool_choice(&request.tool_choice, &mut tools)?;
    Ok(ChatJob {
        tools,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
        format: content::format(&request.response_format),
        think: effort.filter(|word| !word.is_empty()).map(content::effort).transpose()?,
        ..ChatJob::new(base, content::messages(&request.messages)?)
    })
}

async fn chat(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    answer(&server, &bytes, received).await.unwrap_or_else(|failure| refusal::openai(&failure))
}

async fn answer(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<Response, Failure> {
    let request: Request = body::request(bytes)?;
    let stream = request.common.stream.unwrap_or(false);
    let include_usage = request.common.include_usage();
    let job = job(request, received)?;
    let wire = Answer::new(Shape::Chat, job.base.model.clone(), include_usage, job.base.logprobs.is_some());
    let pieces = jobs::chat(server, job).await?;
    if stream {
        return Ok(respond::stream_pieces(server, pieces, wire).await);
    }
    Ok(respond::whole(server, pieces, move |result| wire.whole(result)).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(value: Value) -> Result<ChatJob, Failure> {
        let bytes = Bytes::from(value.to_string());
        body::request::<Request>(&bytes).and_then(|request| job(request, Instant::now()))
    }

    #[test]
    fn a_predicted_output_is_a_text_or_parts_of_one() {
        let predicted = |content: Value| {
            with("prediction", json!({"type": "content", "content": content})).map(|job| job.base.prediction)
        };
        assert_eq!(predicted(json!("a b")).unwrap().as_deref(), Some("a b"));
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]);
        assert_eq!(predicted(parts).unwrap().as_deref(), Some("a b"));
        assert_eq!(with("prediction", Value::Null).unwrap().base.prediction, None);
        for bad in [json!(3), json!([{"type": "image"}]), Value::Null] {
            assert_eq!(predicted(bad).unwrap_err().status.as_u16(), 400);
        }
        assert!(with("prediction", json!("a b")).is_err());
    }

    fn with(field: &str, value: Value) -> Result<ChatJob, Failure> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        body[field] = value;
        read(body)
    }

    #[test]
    fn chat_this_protocol_has_its_own_defaults() {
        let options = with("x", Value::Null).unwrap().base.options;
        assert_eq!((options.temperature, options.top_p), (Some(1.0), Some(1.0)));
        assert_eq!((options.num_predict, options.stop, options.seed), (None, None, None));
        assert_eq!(with("max_tokens", json!(5)).unwrap().base.options.num_predict, Some(5));
        assert_eq!(with("max_completion_tokens", json!(6)).unwrap().base.options.num_predict, Some(6));
        assert_eq!(with("stop", json!("a")).unwrap().base.options.stop, Some(vec!["a".to_owned()]));
        assert_eq!(with("stop", json!(["a", "b"])).unwrap().base.options.stop.unwrap().len(), 2);
        assert!(with("return_progress", json!(true)).unwrap().base.progress);
        assert_eq!(with("logprobs", json!(true)).unwrap().base.logprobs, Some(0));
        let reasoning = with("reasoning", json!({"effort": "high"})).unwrap().think;
        assert_eq!(reasoning, Some(crate::job::Think::Level("high".to_owned())));
    }

    #[test]
    fn chat_wrong_fields_are_400() {
        for (field, value) in [
            ("model", json!("")),
            ("messages", json!([])),
            ("messages", json!("x")),
            ("stop", json!(1)),
            ("stop", json!([1])),
            ("temperature", json!("hot")),
            ("top_logprobs", json!(21)),
            ("top_logprobs", json!(-1)),
            ("reasoning_effort", json!("extreme")),
            ("tools", json!([{"type": "function"}])),
            ("tool_choice", json!("required")),
        ] {
            let failure = with(field, value.clone()).unwrap_err();
            assert_eq!(failure.status, 400, "{field}: {value}");
        }
        assert_eq!(with("messages", json!([])).unwrap_err().message, "[] is too short - 'messages'");
    }

    proptest! {
        #[test]
        fn chat_any_body_is_judged_without_a_panic(
            field in prop::sample::select(vec!["messages", "tools", "stop", "prediction", "stream_options", "seed", "max_tokens", "reasoning"]),
            text in "[\\[\\]{}\",:a-z0-9.-]{0,40}",
        ) {
            let body = format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],\"{field}\":{text}}}");
            let result = body::request::<Request>(&Bytes::from(body)).and_then(|request| job(request, Instant::now()));
            prop_assert!(result.err().is_none_or(|failure| failure.status == 400));
        }
    }
}

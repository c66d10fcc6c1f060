//! `POST /v1/completions`

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::chat::Common;
use super::wire::{Answer, Shape};
use crate::job::GenerateJob;
use crate::state::Server;
use crate::{Failure, body, jobs, refusal, respond};

/// Most alternatives that log-probabilities may come with here.
const MOST_LOGPROBS: i64 = 20;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/v1/completions", post(complete))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    #[serde(flatten)]
    common: Common,
    prompt: Value,
    suffix: Option<String>,
    logprobs: Value,
}

async fn complete(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    answer(&server, &bytes, received).await.unwrap_or_else(|failure| refusal::openai(&failure))
}

async fn answer(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<Response, Failure> {
    let request: Request = body::request(bytes)?;
    let stream = request.common.stream.unwrap_or(false);
    let include_usage = request.common.include_usage();
    let job = job(request, received)?;
    let wire = Answer::new(Shape::Text, job.base.model.clone(), include_usage, job.base.logprobs.is_some());
    let pieces = jobs::generate(server, job).await?;
    if stream {
        return Ok(respond::stream_pieces(server, pieces, wire).await);
    }
    Ok(respond::whole(server, pieces, move |result| wire.whole(result)).await)
}

fn job(request: Request, received: Instant) -> Result<GenerateJob, Failure> {
    if request.common.model.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    let mut base = request.common.base(received)?;
    base.logprobs = logprobs(&request.logprobs)?;
    let prompt = prompt(&request.prompt)?;
    Ok(GenerateJob {
        suffix: request.suffix.filter(|text| !text.is_empty()),
        ..GenerateJob::new(base, prompt)
    })
}

/// A string; a list of one is taken too.
fn prompt(value: &Value) -> Result<String, Failure> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(items) => match items.as_slice() {
            [Value::String(text)] => Ok(text.clone()),
            _ => Err(Failure::bad_request("prompt must be one string: lists and tokens are not supported")),
        },
        _ => Err(Failure::bad_request("prompt must be a string")),
    }
}

/// How many alternatives; `true` is none but the token itself.
fn logprobs(value: &Value) -> Result<Option<u32>, Failure> {
    match value {
        Value::Null | Value::Bool(false) => Ok(None),
        Value::Bool(true) => Ok(Some(0)),
        other => match other.as_i64() {
            Some(count) if (0..=MOST_LOGPROBS).contains(&count) => Ok(u32::try_from(count).ok()),
            _ => Err(Failure::bad_request("logprobs must be between 0 and 20")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<GenerateJob, Failure> {
        let bytes = Bytes::from(value.to_string());
        body::request::<Request>(&bytes).and_then(|request| job(request, Instant::now()))
    }

    #[test]
    fn completions_fields() {
        let job = read(json!({"model": "m", "prompt": "a", "suffix": "b", "logprobs": 2, "max_tokens": 3}))
            .unwrap();
        assert_eq!((job.prompt.as_str(), job.suffix.as_deref()), ("a", Some("b")));
        assert_eq!((job.base.logprobs, job.base.options.num_predict), (Some(2), Some(3)));
        assert_eq!((job.base.options.temperature, job.base.options.top_p), (Some(1.0), Some(1.0)));
        assert_eq!(read(json!({"model": "m", "prompt": ["a"]})).unwrap().prompt, "a");
        for bad in [
            json!({"prompt": "a"}),
            json!({"model": "m", "prompt": ["a", "b"]}),
            json!({"model": "m", "prompt": [1, 2]}),
            json!({"model": "m", "prompt": 1}),
            json!({"model": "m", "prompt": "a", "logprobs": 99}),
        ] {
            assert_eq!(read(bad.clone()).unwrap_err().status, 400, "{bad}");
        }
    }
}

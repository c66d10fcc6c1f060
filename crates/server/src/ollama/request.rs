//! What native requests have in common: names, options, formats, thinking, pictures.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use hypura_engine::media::MediaFile;
use serde_json::{Map, Value, json};

use crate::job::{Format, JobBase, Think};
use crate::jobs::{self, find};
use crate::keep_alive::{KeepAlive, kind};
use crate::models::LookupError;
use crate::options::Options;
use crate::state::Server;
use crate::{Failure, respond, time};

/// Most alternatives that log-probabilities may come with.
const MOST_TOP_LOGPROBS: i64 = 20;
/// Ollama's levels of thinking.
const LEVELS: [&str; 4] = ["low", "medium", "high", "max"];

/// The fields that generate, chat and embed share, as they come.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Common {
    pub model: String,
    pub stream: Option<bool>,
    pub options: Option<Map<String, Value>>,
    pub keep_alive: Value,
    pub format: Value,
    pub think: Value,
    pub truncate: Option<bool>,
    /// Whether an answer that fills the context continues without a part of it.
    shift: Option<bool>,
    pub logprobs: Option<bool>,
    pub top_logprobs: Option<i64>,
    #[serde(rename = "_debug_render_only")]
    pub debug_render_only: bool,
}

impl Common {
    pub fn base(&self, received: Instant) -> Result<JobBase, Failure> {
        let options = self.options.as_ref().map(Options::of_json).transpose();
        Ok(JobBase {
            options: options.map_err(Failure::bad_request)?.unwrap_or_default(),
            keep_alive: self.keep_alive()?,
            logprobs: self.logprobs()?,
            shift: self.shift.unwrap_or(true),
            received,
            ..JobBase::new(self.model.clone())
        })
    }

    pub fn keep_alive(&self) -> Result<Option<KeepAlive>, Failure> {
        KeepAlive::of_json(&self.keep_alive).map_err(Failure::bad_request)
    }

    fn logprobs(&self) -> Result<Option<u32>, Failure> {
        let top = self.top_logprobs.unwrap_or(0);
        if !(0..=MOST_TOP_LOGPROBS).contains(&top) {
            return Err(Failure::bad_request("top_logprobs must be between 0 and 20"));
        }
        let wanted = self.logprobs.unwrap_or(false);
        Ok(wanted.then(|| u32::try_from(top).unwrap_or(0)))
    }

    pub fn think(&self) -> Result<Option<Think>, Failure> {
        match &self.think {
            Value::Null => Ok(None),
            Value::Bool(on) => Ok(Some(Think::Switch(*on))),
            Value::String(word) if word == "true" || word == "false" => {
                Ok(Some(Think::Switch(word == "true")))
            }
            Value::String(level) if LEVELS.contains(&level.as_str()) => Ok(Some(Think::Level(level.clone()))),
            Value::String(other) => {
                let message = format!(
                    "invalid think value: {other:?} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"
                );
                Err(Failure::bad_request(message))
            }
            other => {
                Err(Failure::bad_request(format!("think must be a boolean or string, not {}", kind(other))))
            }
        }
    }

    pub fn format(&self) -> Result<Format, Failure> {
        match &self.format {
            Value::Null => Ok(Format::Free),
            Value::String(text) if text.is_empty() => Ok(Format::Free),
            Value::String(text) if text == "json" => Ok(Format::Json),
            Value::Object(_) => Ok(Format::Schema(self.format.clone())),
            other => Err(Failure::bad_request(format!(
                "invalid format: {other}; expected \"json\" or a valid JSON Schema object"
            ))),
        }
    }
}

/// Pictures and sounds out of base64.
pub(super) fn media(encoded: &[String]) -> Result<Vec<MediaFile>, Failure> {
    let decode = |text: &String| {
        STANDARD.decode(text.trim()).map(Arc::new).map_err(|error| {
            Failure::bad_request(format!(
                "illegal base64 data in images: {error} (no data: prefix, standard alphabet)"
            ))
        })
    };
    encoded.iter().map(decode).collect()
}

/// Loads a model, or has it leave with `keep_alive` 0; `rest` is what the answer has beside the common
/// fields.
pub(super) async fn load_or_unload(server: &Arc<Server>, base: JobBase, rest: Value) -> Response {
    let work = Arc::clone(server);
    respond::patient(server, async move { loaded_or_unloaded(&work, &base, rest).await }).await
}

async fn loaded_or_unloaded(server: &Arc<Server>, base: &JobBase, rest: Value) -> Response {
    let entry = match find(server, &base.model).await {
        Ok(entry) => entry,
        Err(error) => return respond::native_failure(&lookup_failure(error, &base.model)),
    };
    let unload = base.keep_alive.is_some_and(KeepAlive::is_zero);
    let mut load = Duration::ZERO;
    if unload {
        jobs::unload(server, &entry);
    } else {
        let options = base.options.clone().over(&jobs::own_options(&entry));
        match jobs::load(server, &entry, &options, base.keep_alive).await {
            Ok(took) => load = took,
            Err(failure) => return respond::native_failure(&failure),
        }
    }
    let mut answer = Map::new();
    answer.insert("model".to_owned(), json!(base.model));
    answer.insert("created_at".to_owned(), json!(time::now_utc()));
    if let Value::Object(rest) = rest {
        answer.extend(rest);
    }
    answer.insert("done".to_owned(), json!(true));
    answer.insert("done_reason".to_owned(), json!(if unload { "unload" } else { "load" }));
    if !load.is_zero() {
        answer.insert("total_duration".to_owned(), json!(time::nanos(base.received.elapsed())));
        answer.insert("load_duration".to_owned(), json!(time::nanos(load)));
    }
    respond::json(StatusCode::OK, &answer)
}

/// The prompt that a request would make, without an answer of the model. May have to load it.
pub(super) async fn rendered(
    server: &Arc<Server>,
    model: String,
    rest: Value,
    images: usize,
    text: impl Future<Output = Result<String, Failure>> + Send + 'static,
) -> Response {
    respond::patient(server, async move {
        let text = match text.await {
            Ok(text) => text,
            Err(failure) => return respond::native_failure(&failure),
        };
        let mut answer = json!({"model": model, "created_at": time::now_utc()});
        if let (Value::Object(answer), Value::Object(rest)) = (&mut answer, rest) {
            answer.extend(rest);
        }
        answer["done"] = json!(false);
        answer["_debug_info"] = json!({"rendered_template": text, "image_count": images});
        respond::json(StatusCode::OK, &answer)
    })
    .await
}

/// What a name that leads nowhere answers.
pub(super) fn lookup_failure(error: LookupError, name: &str) -> Failure {
    match error {
        LookupError::Invalid => Failure::bad_request("invalid model name"),
        LookupError::NotInstalled => Failure::no_model(name),
        LookupError::Refused(failure) => failure,
    }
}

//! Failures in the shapes of the protocols, and which protocol a path belongs to: middleware refuses what no
//! handler sees.

use axum::response::Response;
use serde_json::{Value, json};

use super::ids::random_hex;
use super::respond::{self, native_failure};
use super::{Cause, Failure};

/// llama-server's paths outside of `/v1`, whose errors are OpenAI's.
const LLAMA_PATHS: [&str; 6] =
    ["/chat/completions", "/tokenize", "/detokenize", "/apply-template", "/props", "/slots"];

/// A failure in the shape of the protocol that `path` belongs to.
#[must_use]
pub fn of_path(path: &str, failure: &Failure) -> Response {
    if path == "/v1/messages" || path.starts_with("/v1/messages/") {
        return anthropic(failure);
    }
    if path.starts_with("/v1/") || LLAMA_PATHS.contains(&path) {
        return openai(failure);
    }
    native_failure(failure)
}

/// A failure in OpenAI's shape.
#[must_use]
pub fn openai(failure: &Failure) -> Response {
    respond::json(failure.status, &json!({"error": openai_error(failure)}))
}

/// OpenAI's code of a prompt that does not fit: by it clients know that they have to say less, and agents sum
/// up what was said.
pub const TOO_LONG: &str = "context_length_exceeded";

/// OpenAI's error object, also in the middle of a stream.
#[must_use]
pub fn openai_error(failure: &Failure) -> Value {
    if let Cause::PromptTooLong { tokens, most } = failure.cause {
        let message = format!(
            "This model's maximum context length is {most} tokens. However, your messages resulted in {tokens} tokens. \
             Please reduce the length of the messages."
        );
        return json!({"message": message, "type": "invalid_request_error", "param": "messages", "code": TOO_LONG});
    }
    let kind = match failure.status.as_u16() {
        400 | 405 | 413 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        _ => "api_error",
    };
    json!({"message": failure.message, "type": kind, "param": null, "code": null})
}

/// A failure in Anthropic's shape.
#[must_use]
pub fn anthropic(failure: &Failure) -> Response {
    let mut value = anthropic_error(failure);
    value["request_id"] = json!(format!("req_{}", random_hex(24)));
    respond::json(failure.status, &value)
}

/// Anthropic's error object, also in the middle of a stream.
#[must_use]
pub fn anthropic_error(failure: &Failure) -> Value {
    let kind = match failure.status.as_u16() {
        400 | 405 | 413 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    };
    let message = match failure.cause {
        // By these words clients know that they have to say less, and by how much.
        Cause::PromptTooLong { tokens, most } => {
            format!("prompt is too long: {tokens} tokens > {most} maximum")
        }
        Cause::Other => failure.message.clone(),
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

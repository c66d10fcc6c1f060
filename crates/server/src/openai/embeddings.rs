//! `POST /v1/embeddings`

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::job::{EmbedJob, JobBase};
use crate::state::Server;
use crate::{Failure, body, jobs, refusal, respond};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/v1/embeddings", post(embeddings))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    model: String,
    input: Value,
    dimensions: Option<usize>,
    encoding_format: Option<String>,
}

async fn embeddings(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    let work = Arc::clone(&server);
    respond::patient(&server, async move {
        answer(&work, &bytes, received).await.unwrap_or_else(|failure| refusal::openai(&failure))
    })
    .await
}

async fn answer(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<Response, Failure> {
    let request: Request = body::request(bytes)?;
    if request.model.is_empty() {
        return Err(Failure::bad_request("model is required"));
    }
    let base64 = match request.encoding_format.as_deref() {
        None | Some("" | "float") => false,
        Some("base64") => true,
        Some(other) => {
            return Err(Failure::bad_request(format!(
                "invalid encoding_format: {other:?} (must be \"float\" or \"base64\")"
            )));
        }
    };
    let inputs = inputs(&request.input)?;
    let base = JobBase { received, ..JobBase::new(request.model.clone()) };
    let job = EmbedJob { base, inputs, truncate: true, dimensions: request.dimensions, normalise: true };
    let embedded = jobs::embed(server, job).await?;
    let data = embedded.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if base64 { json!(encoded(vector)) } else { json!(vector) };
        json!({"object": "embedding", "embedding": embedding, "index": index})
    });
    let tokens = embedded.prompt_tokens;
    Ok(respond::json(
        StatusCode::OK,
        &json!({
            "object": "list",
            "data": data.collect::<Vec<_>>(),
            "model": request.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }),
    ))
}

fn inputs(input: &Value) -> Result<Vec<String>, Failure> {
    let invalid = || Failure::bad_request("invalid input");
    match input {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(invalid)).collect()
        }
        _ => Err(invalid()),
    }
}

/// Little-endian 32-bit floats in base64, which OpenAI's Python library asks for by itself.
fn encoded(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_inputs() {
        assert_eq!(inputs(&json!("")).unwrap(), [""]);
        assert_eq!(inputs(&json!(["a", ""])).unwrap(), ["a", ""]);
        for bad in [json!(null), json!([]), json!([1]), json!([[1, 2]]), json!({"a": 1}), json!(3)] {
            assert_eq!(inputs(&bad).unwrap_err().message, "invalid input");
        }
    }

    #[test]
    fn embeddings_base64_is_little_endian() {
        assert_eq!(encoded(&[1.0, -2.0]), STANDARD.encode([0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]));
    }
}

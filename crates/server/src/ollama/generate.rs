//! `POST /api/generate`

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::request::{self, Common};
use super::wire::{Native, Shape};
use crate::job::GenerateJob;
use crate::state::Server;
use crate::{Failure, body, jobs, respond};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/generate", post(generate))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    #[serde(flatten)]
    common: Common,
    prompt: String,
    suffix: String,
    system: String,
    template: String,
    raw: bool,
    images: Vec<String>,
    context: Vec<i32>,
}

async fn generate(State(server): State<Arc<Server>>, body::Whole(bytes): body::Whole) -> Response {
    let received = Instant::now();
    match answer(&server, &bytes, received).await {
        Ok(response) => response,
        Err(failure) => respond::native_failure(&failure),
    }
}

async fn answer(server: &Arc<Server>, bytes: &Bytes, received: Instant) -> Result<Response, Failure> {
    let request: Request = body::request(bytes)?;
    let job = job(&request, received)?;
    if request.common.model.is_empty() {
        return Err(Failure::no_model(""));
    }
    let asks = !request.prompt.is_empty() || !request.suffix.is_empty() || !request.images.is_empty();
    if !asks && !request.common.debug_render_only {
        return Ok(request::load_or_unload(server, job.base, json!({"response": ""})).await);
    }
    let native = Native { model: request.common.model.clone(), shape: Shape::Generate };
    if request.common.debug_render_only {
        let rest = json!({"response": ""});
        let (images, work) = (job.media.len(), Arc::clone(server));
        let text = async move { jobs::render_generate(&work, job).await };
        return Ok(request::rendered(server, native.model, rest, images, text).await);
    }
    let stream = request.common.stream.unwrap_or(true);
    let pieces = jobs::generate(server, job).await?;
    if stream {
        return Ok(respond::stream_pieces(server, pieces, native).await);
    }
    Ok(respond::whole(server, pieces, move |result| native.whole(&result)).await)
}

fn job(request: &Request, received: Instant) -> Result<GenerateJob, Failure> {
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    if request.raw
        && !(request.template.is_empty() && request.system.is_empty() && request.context.is_empty())
    {
        return Err(Failure::bad_request("raw mode does not support template, system, or context"));
    }
    Ok(GenerateJob {
        suffix: some(&request.suffix),
        system: some(&request.system),
        template: some(&request.template),
        raw: request.raw,
        context: Some(request.context.clone()).filter(|context| !context.is_empty()),
        wants_context: true,
        media: request::media(&request.images)?,
        format: request.common.format()?,
        think: request.common.think()?,
        truncate: request.common.truncate.unwrap_or(true),
        ..GenerateJob::new(request.common.base(received)?, request.prompt.clone())
    })
}

//! Embeddings.

use std::sync::Arc;
use std::time::Instant;

use hypura_engine::Token;
use hypura_engine::request::EmbedSink;
use tokio::sync::oneshot;

use super::{bounds, lookup};
use crate::Failure;
use crate::job::{EmbedJob, Embedded};
use crate::models::backend::{Engine, LoadRequest};
use crate::request_log::RequestLine;
use crate::state::Server;

/// Turns texts into vectors. Dropping the future cancels the work.
///
/// # Errors
/// Texts that are too long, vectors that are no numbers, what the loader and the engine say.
pub async fn embed(server: &Arc<Server>, job: EmbedJob) -> Result<Embedded, Failure> {
    let line = RequestLine::new(&server.counters, &job.base.model, job.base.received);
    let result = vectors(server, job).await;
    match &result {
        Ok(embedded) => line.embedded(embedded),
        Err(failure) => line.failed(failure),
    }
    result
}

async fn vectors(server: &Arc<Server>, job: EmbedJob) -> Result<Embedded, Failure> {
    let found = lookup::find_for(server, &job.base).await?;
    let start = Instant::now();
    let load_request = LoadRequest::asked(found.options.context());
    let lease = server.models.acquire(&found.entry, load_request, job.base.keep_alive).await?;
    let load = start.elapsed();
    let (truncate, inputs) = (job.truncate, job.inputs);
    let num_ctx = found.options.context();
    let made = tokio::task::spawn_blocking(move || {
        let tokens = tokens_of(lease.engine().as_ref(), &inputs, num_ctx, truncate);
        (lease, tokens)
    });
    let (lease, tokens) = made.await.map_err(|_| Failure::internal("the texts could not be read"))?;
    let tokens = tokens?;
    let prompt_tokens = tokens.iter().map(|tokens| tokens.len() as u64).sum();
    let mut vectors = Vec::new();
    if !tokens.is_empty() {
        let (sender, receiver) = oneshot::channel();
        let sink: EmbedSink = Box::new(move |result| drop(sender.send(result)));
        let engine = Arc::clone(lease.engine());
        let queued = tokio::task::spawn_blocking(move || engine.embed(tokens, sink)).await;
        let _ticket = queued.map_err(|_| Failure::internal("the texts could not be queued"))??;
        let stopped = |_| Failure::internal("the model stopped before the embedding was complete");
        vectors = receiver.await.map_err(stopped)?.map_err(Failure::of_request)?;
    }
    for vector in &mut vectors {
        finish(vector, job.dimensions, job.normalise)?;
    }
    Ok(Embedded { vectors, prompt_tokens, total: job.base.received.elapsed(), load })
}

fn tokens_of(
    engine: &dyn Engine,
    inputs: &[String],
    num_ctx: Option<u32>,
    truncate: bool,
) -> Result<Vec<Vec<Token>>, Failure> {
    bounds::check(inputs.iter().map(String::as_str))?;
    let room = engine.embed_limit(num_ctx) as usize;
    // Without the tokens that begin and end every text of this model.
    if !inputs.is_empty() && room <= engine.tokenize("", true, false).len() {
        return Err(Failure::bad_request("input after truncation exceeds maximum context length"));
    }
    let mut out = Vec::with_capacity(inputs.len());
    for input in inputs {
        let mut tokens = engine.tokenize(input, true, false);
        if tokens.len() > room {
            if !truncate {
                return Err(Failure::bad_request("the input length exceeds the context length"));
            }
            // The end goes, but not the token that closes every text of this model.
            let close = engine.tokenize("", true, false).last().copied();
            let last = tokens.last().copied().filter(|last| Some(*last) == close);
            tokens.truncate(room);
            if let (Some(last), Some(place)) = (last, tokens.last_mut()) {
                *place = last;
            }
        }
        out.push(tokens);
    }
    Ok(out)
}

/// Cuts a vector to `dimensions` and scales it to length 1, as asked.
fn finish(vector: &mut Vec<f32>, dimensions: Option<usize>, normalise: bool) -> Result<(), Failure> {
    if vector.iter().any(|value| !value.is_finite()) {
        return Err(Failure::bad_request("the embedding contains values that are no numbers (NaN or Inf)"));
    }
    if let Some(dimensions) = dimensions.filter(|dimensions| *dimensions > 0) {
        vector.truncate(dimensions);
    }
    if normalise {
        let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            for value in vector {
                #[expect(clippy::cast_possible_truncation, reason = "vectors are f32")]
                let scaled = (f64::from(*value) / length) as f32;
                *value = scaled;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embed_vectors_are_cut_and_then_scaled() {
        let mut vector = vec![3.0, 4.0, 12.0];
        finish(&mut vector, Some(2), true).unwrap();
        assert_eq!(vector, [0.6, 0.8]);
        let mut vector = vec![3.0, 4.0];
        finish(&mut vector, None, false).unwrap();
        assert_eq!(vector, [3.0, 4.0]);
        let mut zero = vec![0.0, 0.0];
        finish(&mut zero, Some(9), true).unwrap();
        assert_eq!(zero, [0.0, 0.0]);
    }

    #[test]
    fn embed_no_number_is_a_400() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(finish(&mut vec![1.0, bad], None, true).unwrap_err().status, 400);
        }
    }
}

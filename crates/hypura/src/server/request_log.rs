//! One line in the log for each request that reaches a model.
//!
//! A [`RequestLine`] that is dropped without an end is a client that went away: status 499, which nobody is sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Failure;
use super::job::{Embedded, Summary};
use super::state::Server;

/// Status of a client that went away, as web servers log it.
const CLIENT_CLOSED: u16 = 499;

/// The line of one request, written at its end.
pub struct RequestLine {
    server: Arc<Server>,
    model: String,
    received: Instant,
    first_token: Option<Instant>,
    /// Tokens of the prompt that were in the cache, once that is known.
    pub reused: u32,
    ended: bool,
}

impl RequestLine {
    /// A request that begins.
    #[must_use]
    pub fn new(server: &Arc<Server>, model: &str, received: Instant) -> Self {
        server.counters.requests.fetch_add(1, Ordering::Relaxed);
        server.counters.active.fetch_add(1, Ordering::Relaxed);
        Self {
            server: Arc::clone(server),
            model: model.to_owned(),
            received,
            first_token: None,
            reused: 0,
            ended: false,
        }
    }

    /// The first token is there.
    pub fn first_token(&mut self) {
        self.first_token.get_or_insert_with(Instant::now);
    }

    /// It ended well.
    pub fn done(&mut self, summary: &Summary) {
        self.ended = true;
        let counters = &self.server.counters;
        counters.first_token(summary.first_token);
        let uses = summary.hits + summary.misses;
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let hit_rate = if uses == 0 { 1.0 } else { summary.hits as f64 / uses as f64 };
        let decode = summary.decode.as_secs_f64();
        let tps = if decode > 0.0 { f64::from(summary.generated_tokens) / decode } else { 0.0 };
        tracing::info!(
            status = 200,
            model = %self.model,
            prompt_tokens = summary.prompt_tokens,
            reused = summary.reused_tokens,
            tokens = summary.generated_tokens,
            ttft_ms = summary.first_token.as_millis(),
            tps = (tps * 100.0).round() / 100.0,
            bytes_read = summary.bytes_read,
            hit_rate = (hit_rate * 1000.0).round() / 1000.0,
            total_ms = summary.total.as_millis(),
            "request"
        );
    }

    /// Its vectors are there.
    pub fn embedded(&mut self, embedded: &Embedded) {
        self.ended = true;
        tracing::info!(
            status = 200,
            model = %self.model,
            prompt_tokens = embedded.prompt_tokens,
            vectors = embedded.vectors.len(),
            total_ms = embedded.total.as_millis(),
            "request"
        );
    }

    /// It ended badly.
    pub fn failed(&mut self, failure: &Failure) {
        self.ended = true;
        self.server.counters.failures.fetch_add(1, Ordering::Relaxed);
        let total_ms = self.received.elapsed().as_millis();
        tracing::warn!(status = failure.status.as_u16(), model = %self.model, total_ms, reason = %failure, "request");
    }
}

impl Drop for RequestLine {
    fn drop(&mut self) {
        self.server.counters.active.fetch_sub(1, Ordering::Relaxed);
        if !self.ended {
            self.server.counters.disconnects.fetch_add(1, Ordering::Relaxed);
            let total_ms = self.received.elapsed().as_millis();
            let reused = self.reused;
            let began = self.first_token.is_some();
            tracing::info!(status = CLIENT_CLOSED, model = %self.model, reused, began, total_ms, "request");
        }
    }
}

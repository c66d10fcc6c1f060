//! One line in the log for each request that reaches a model.
//!
//! A [`RequestLine`] that is dropped without an end is a client that disconnected: status 499, which nobody
//! is sent. That line is written when the engine has let go of the request too, because only then it is known
//! what it took.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hypura_engine::request::Outcome;

use super::Failure;
use super::counters::Counters;
use super::job::{Embedded, Summary};

/// Status of a client that disconnected, as web servers log it.
const CLIENT_CLOSED: u16 = 499;

/// The line of one request, written at its end.
pub struct RequestLine(Arc<Line>);

/// The engine's side of a request: what it took, also when the client is gone.
pub struct EngineSide(Arc<Line>);

struct Line {
    counters: Arc<Counters>,
    model: String,
    received: Instant,
    seen: Mutex<Seen>,
}

/// What is known of a request so far.
#[derive(Default)]
struct Seen {
    ended: bool,
    began: bool,
    reused: u32,
    tokens: u32,
    bytes_read: u64,
}

impl Line {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EngineSide {
    /// The engine is done with it.
    pub fn done(&self, outcome: &Outcome) {
        let mut seen = self.0.seen();
        seen.reused = u32::try_from(outcome.reused_tokens).unwrap_or(u32::MAX);
        seen.tokens = u32::try_from(outcome.tokens.len()).unwrap_or(u32::MAX);
        seen.bytes_read = outcome.prefill_stats.bytes_read + outcome.decode_stats.bytes_read;
    }
}

impl RequestLine {
    /// A request that begins.
    #[must_use]
    pub fn new(counters: &Arc<Counters>, model: &str, received: Instant) -> Self {
        counters.requests.fetch_add(1, Ordering::Relaxed);
        counters.active.fetch_add(1, Ordering::Relaxed);
        let (counters, model, seen) = (Arc::clone(counters), field(model), Mutex::default());
        Self(Arc::new(Line { counters, model, received, seen }))
    }

    /// What the engine gets to say what the request took.
    #[must_use]
    pub fn engine_side(&self) -> EngineSide {
        EngineSide(Arc::clone(&self.0))
    }

    /// It has a sequence; so many tokens of its prompt were in the cache.
    pub fn started(&self, reused: u32) {
        self.0.seen().reused = reused;
    }

    /// The first token is there.
    pub fn first_token(&self) {
        self.0.seen().began = true;
    }

    /// It ended well.
    pub fn done(&self, summary: &Summary) {
        self.0.seen().ended = true;
        self.0.counters.first_token(summary.first_token);
        let uses = summary.hits + summary.misses;
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let hit_rate = if uses == 0 { 1.0 } else { summary.hits as f64 / uses as f64 };
        let decode = summary.decode.as_secs_f64();
        let tps = if decode > 0.0 { f64::from(summary.generated_tokens) / decode } else { 0.0 };
        tracing::info!(
            status = 200,
            model = %self.0.model,
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
    pub fn embedded(&self, embedded: &Embedded) {
        self.0.seen().ended = true;
        tracing::info!(
            status = 200,
            model = %self.0.model,
            prompt_tokens = embedded.prompt_tokens,
            vectors = embedded.vectors.len(),
            total_ms = embedded.total.as_millis(),
            "request"
        );
    }

    /// It ended badly.
    pub fn failed(&self, failure: &Failure) {
        self.0.seen().ended = true;
        let Line { counters, model, received, .. } = &*self.0;
        counters.failures.fetch_add(1, Ordering::Relaxed);
        let (status, total_ms) = (failure.status.as_u16(), received.elapsed().as_millis());
        tracing::warn!(status, model = %model, total_ms, reason = ?bounded(&failure.to_string()), "request");
    }
}

/// As much as a line of the log has of what a client wrote.
fn bounded(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A name that a client wrote, as a field of the log: in quotes unless it is plainly a name.
fn field(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    let name = bounded(name);
    if !name.is_empty() && name.chars().all(plain) { name } else { format!("{name:?}") }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.counters.active.fetch_sub(1, Ordering::Relaxed);
        let Seen { ended, began, reused, tokens, bytes_read } = *self.seen();
        if !ended {
            self.counters.disconnects.fetch_add(1, Ordering::Relaxed);
            let (model, total_ms) = (&self.model, self.received.elapsed().as_millis());
            tracing::info!(
                status = CLIENT_CLOSED,
                model = %model,
                reused,
                tokens,
                bytes_read,
                began,
                total_ms,
                "request"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn no_client_writes_a_line_or_a_field_of_the_log() {
        assert_eq!(field("hf.co/org/model-GGUF:Q4_K_M"), "hf.co/org/model-GGUF:Q4_K_M");
        assert_eq!(field("a\nstatus=200"), r#""a\nstatus=200""#);
        assert_eq!((field("a b").as_str(), field("").as_str()), ("\"a b\"", "\"\""));
        assert!(field(&"x".repeat(100_000)).chars().count() < 400);
    }
}

//! llama-server's `timings`: what an answer took, in milliseconds and tokens a second.

use std::time::Duration;

use serde_json::{Value, json};

use crate::job::Summary;

/// Milliseconds with their fraction.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The object of an answer.
pub(super) fn of(summary: &Summary) -> Value {
    let computed = summary.prompt_tokens.saturating_sub(summary.reused_tokens);
    let (prompt_ms, predicted_ms) = (millis(summary.prefill), millis(summary.decode));
    let mut out = json!({
        "cache_n": summary.reused_tokens,
        "prompt_n": computed,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": ratio(prompt_ms, f64::from(computed)),
        "prompt_per_second": ratio(f64::from(computed) * 1000.0, prompt_ms),
        "predicted_n": summary.generated_tokens,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": ratio(predicted_ms, f64::from(summary.generated_tokens)),
        "predicted_per_second": ratio(f64::from(summary.generated_tokens) * 1000.0, predicted_ms),
    });
    if summary.drafts > 0 {
        out["draft_n"] = json!(summary.drafts);
        out["draft_n_accepted"] = json!(summary.drafts_accepted);
    }
    out
}

/// 0 where nothing was divided: JSON has no infinity.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

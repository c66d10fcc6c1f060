//! What was said of an arm before it ran, and how far off that was.

use hypura_core::roofline::BoundBy;
use serde::{Deserialize, Serialize};

/// What a plan promised.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Decoded tokens per second.
    pub decode_tps: Option<f64>,
    /// Prompt tokens per second.
    pub prefill_tps: Option<f64>,
    /// Opening, planning and loading in milliseconds.
    pub load_ms: Option<f64>,
    /// Bytes read per decoded token.
    pub read_bytes_per_token: Option<f64>,
    /// Share of expert lookups that hit.
    pub hit_rate: Option<f64>,
    /// What was said to bind.
    pub bound_by: Option<BoundBy>,
    /// What was not measured, so that figures are missing; what was assumed.
    pub remarks: Vec<String>,
}

/// Predicted over measured, less 1: 0.1 is a tenth too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PredictionError {
    /// Of the decode speed.
    pub decode: Option<f64>,
    /// Of the speed of the prompt.
    pub prefill: Option<f64>,
    /// Of the time to load.
    pub load: Option<f64>,
    /// Of the bytes read per token.
    pub read_bytes: Option<f64>,
}

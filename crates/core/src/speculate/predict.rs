//! What drafts would make of a predicted speed, before anything runs: the same price as while running, with
//! an assumed acceptance.

use super::row_times::{RowTimes, StepSample, Widening};
use crate::model::{ModelShape, TensorRole};
use crate::plan::{DecodeCost, Plan};

/// What is assumed of a draft model: the demo pair agrees on 88% of tokens, published pairs on 60 to 90%.
pub const ASSUMED_ACCEPTANCE: f64 = 0.8;

/// Decoding with drafts, as predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeculationCost {
    /// Tokens per second.
    pub tokens_per_s: f64,
    /// Drafts of a step; 0 where none pay.
    pub drafts: usize,
    /// Tokens that a step brings.
    pub tokens_per_step: f64,
}

impl Widening {
    /// What of a planned model streams.
    #[must_use]
    pub fn of(shape: &ModelShape, plan: &Plan) -> Self {
        let share = f64::from(shape.experts_used) / f64::from(shape.experts.max(1));
        let streams = plan.experts.is_some();
        Self {
            dense_bytes: plan.streamed_dense_bytes(shape) as f64,
            expert_bytes: if streams { routed_bytes(shape) * share } else { 0.0 },
            expert_share: if streams { share } else { 0.0 },
        }
    }
}

/// Predicts decoding with at most so many drafts a step from decoding without. A draft takes as long as
/// computing a token of the model, in proportion to the bytes that either multiplies with.
#[must_use]
pub fn predict_speculation(
    shape: &ModelShape,
    plan: &Plan,
    decode: &DecodeCost,
    draft_bytes: u64,
    most: usize,
) -> SpeculationCost {
    let mut times = RowTimes::new(Widening::of(shape, plan));
    let plain_s = 1.0 / decode.tokens_per_s.mid;
    let compute_s = decode.compute_s + decode.sync_s;
    times.observe(StepSample { rows: 1, wall_s: plain_s, compute_s, disk_s: decode.read_s });
    let used = shape.total_bytes() as f64 - routed_bytes(shape);
    let share = f64::from(shape.experts_used) / f64::from(shape.experts.max(1));
    let drafting_s = compute_s * draft_bytes as f64 / (used + routed_bytes(shape) * share).max(1.0);
    let with = |drafts: usize| {
        let expected: f64 = (0..=drafts).map(|at| ASSUMED_ACCEPTANCE.powi(at as i32)).sum();
        let step_s = times.seconds(1 + drafts).unwrap_or(plain_s) + drafts as f64 * drafting_s;
        SpeculationCost { tokens_per_s: expected / step_s, drafts, tokens_per_step: expected }
    };
    let best = (0..=most).map(with).max_by(|one, other| one.tokens_per_s.total_cmp(&other.tokens_per_s));
    best.unwrap_or_else(|| with(0))
}

fn routed_bytes(shape: &ModelShape) -> f64 {
    let routed = shape.tensors.iter().filter(|tensor| matches!(tensor.role, TensorRole::RoutedExpert(_)));
    routed.map(|tensor| tensor.info.bytes as f64).sum()
}

//! Which workers are worth it: those without which a request takes longer.
//!
//! A request here is a prompt and an answer of usual lengths, predicted for the layers that the workers would
//! get. A slow link or a slow machine may cost more than the disk does; such a one gets none, and the reason
//! is told. Nothing is measured here: needs are those of [`Split`].

use super::cost::{CostInput, Workload, predict};
use super::hits::Routing;
use super::pool::PoolId;
use super::request::Constraints;
use super::split::Split;
use super::{ExpertLayout, fill};
use crate::model::ModelShape;
use crate::profile::Profile;

/// What a worker has to change to be left out, as a share of the time: predictions are no better than that.
const NOTICEABLE: f64 = 0.02;

/// What is decided about.
pub(super) struct Choosing<'a> {
    pub shape: &'a ModelShape,
    pub layout: &'a ExpertLayout,
    /// This machine and the workers.
    pub speeds: &'a Profile,
    /// Everything on the host.
    pub on_host: &'a Constraints,
}

/// What was decided.
pub(super) struct Choice<'a> {
    /// Among the workers that are worth it.
    pub split: Split<'a>,
    /// The others, with the reason.
    pub left_out: Vec<(PoolId, String)>,
}

/// How long a request takes.
#[derive(Clone, Copy)]
struct Speed {
    request_s: f64,
    tokens_per_s: f64,
}

impl Choosing<'_> {
    /// Leaves out one worker after another, the one first without which it is fastest, as long as it gets
    /// faster. Where it cannot be predicted, all stay.
    pub fn choose<'s>(&self, mut split: Split<'s>, fits: &dyn Fn(&Constraints) -> bool) -> Choice<'s> {
        let mut left_out = Vec::new();
        // What does not run at all without a worker is worth any time.
        while let Some(now) = self.speed(&split, fits) {
            let others = split.machines().into_iter().filter_map(|pool| {
                let without = split.without(pool);
                Some((pool, self.speed(&without, fits)?, without))
            });
            let best = others.min_by(|a, b| a.1.request_s.total_cmp(&b.1.request_s));
            let Some((pool, then, without)) =
                best.filter(|(_, then, _)| then.request_s < now.request_s * (1.0 - NOTICEABLE))
            else {
                break;
            };
            left_out.push((pool, self.reason(pool, now, then)));
            split = without;
        }
        Choice { split, left_out }
    }

    /// With the layers that the workers of a split would get; `None` where there is no plan, or no
    /// prediction.
    fn speed(&self, split: &Split<'_>, fits: &dyn Fn(&Constraints) -> bool) -> Option<Speed> {
        let Self { shape, layout, on_host, .. } = *self;
        let most = split.most_layers();
        let layers = if most == 0 { 0 } else { split.enough(most, on_host, fits) };
        let plan = fill(shape, layout, &split.estimated(layers, on_host)).ok()?;
        let ubatch_tokens = plan.context.ubatch_tokens;
        let workload = Workload { ubatch_tokens, routing: Routing::of(shape), ..Workload::default() };
        let input = CostInput { shape, layout, plan: &plan, profile: self.speeds, workload };
        let prediction = predict(&input);
        let tokens_per_s = prediction.decode?.tokens_per_s.mid;
        let answer_s = f64::from(workload.generated_tokens) / tokens_per_s;
        Some(Speed { request_s: prediction.prefill?.first_token_s.mid + answer_s, tokens_per_s })
    }

    fn reason(&self, pool: PoolId, now: Speed, then: Speed) -> String {
        let rates = self.speeds.workers.get(pool.index().saturating_sub(1)).cloned().unwrap_or_default();
        let (with, without) = (now.tokens_per_s, then.tokens_per_s);
        let (round_trip_ms, rate) = (rates.round_trip_s * 1e3, rates.bytes_per_s / 1e6);
        let longer = now.request_s / then.request_s;
        format!(
            "a request would take {longer:.1} times as long with it, {with:.2} tok/s instead of {without:.2} \
             (its link: {round_trip_ms:.2} ms there and back, {rate:.1} MB/s)"
        )
    }
}

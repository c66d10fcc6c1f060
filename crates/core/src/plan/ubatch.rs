//! How many tokens of a prompt are computed at once.
//!
//! Each ubatch reads every weight that it touches and that is not in memory, so a prompt in one ubatch reads
//! a quarter of what it reads in four. A larger ubatch needs larger compute buffers, which the cache of
//! streamed weights then lacks in every token that follows.

use super::ledger::{Basis, Purpose};
use super::{Constraints, ContextShape, ExpertLayout, Mode, Plan, estimate_needs, fill};
use crate::model::ModelShape;

/// Most that is chosen: beyond that, computing takes longer than any disk.
const LARGE_UBATCH: u32 = 4096;

/// A larger ubatch or context may take one part in so many of the cache of streamed weights: hit rates then
/// fall by about a point.
const CACHE_SHARE: u64 = 32;

/// The largest ubatch, from what is asked for upwards, whose memory the cache hardly misses. What is asked
/// for, where nothing streams or no plan works. What llama.cpp needs is estimated, whatever is measured
/// later, so that a model is planned with the same ubatch wherever its header is; `constraints` are those
/// that its plan will be held to.
#[must_use]
pub fn choose_ubatch(shape: &ModelShape, layout: &ExpertLayout, constraints: &Constraints) -> u32 {
    let asked = constraints.context.ubatch_tokens;
    let media = constraints.needs.bytes_for(Purpose::Media);
    let planned = |ubatch_tokens| {
        let context = ContextShape { ubatch_tokens, ..constraints.context };
        let needs = estimate_needs(shape, &context).ok()?.with_host(Purpose::Media, media, Basis::Estimated);
        fill(shape, layout, &Constraints { context, needs, ..constraints.clone() }).ok()
    };
    // Of a table each token has its own rows, however many tokens there are.
    let streams = |plan: &Plan| !matches!(plan.mode(), Mode::FullResident | Mode::TableStreaming);
    let Some(small) = planned(asked).filter(streams) else { return asked };
    let costs_little = |ubatch_tokens| {
        planned(ubatch_tokens).is_some_and(|plan| hardly_less_in_memory(shape, &small, &plan))
    };
    let largest = LARGE_UBATCH.min(constraints.context.context_tokens);
    let halves = std::iter::successors(Some(largest), |ubatch| Some(ubatch / 2));
    halves.take_while(|ubatch| *ubatch > asked).find(|ubatch| costs_little(*ubatch)).unwrap_or(asked)
}

/// Whether a plan with larger buffers runs in the same way as another, with nearly as many weights in memory.
pub(super) fn hardly_less_in_memory(shape: &ModelShape, small: &Plan, large: &Plan) -> bool {
    let held = held_bytes(shape, small);
    large.mode() == small.mode() && held.saturating_sub(held_bytes(shape, large)) <= held / CACHE_SHARE
}

/// Bytes of the weights that can stream and have room in memory.
fn held_bytes(shape: &ModelShape, plan: &Plan) -> u64 {
    let dense = plan.dense.as_ref().map_or(0, |dense| dense.streamable_bytes);
    let held = dense.saturating_sub(plan.streamed_dense_bytes(shape));
    plan.slot_bytes().saturating_add(held)
}

//! How many tokens of a prompt are computed at once.
//!
//! Each ubatch reads every weight that it touches and that is not in memory, so a prompt in one ubatch reads a quarter of
//! what it reads in four. A larger ubatch needs larger compute buffers, which the cache of streamed weights then lacks in
//! every token that follows.

use super::{ContextRequest, ExpertLayout, Fixed, Mode, Plan, Request, estimate_fixed, plan};
use crate::model::ModelShape;

/// Tokens of a ubatch where there is no reason for more (llama.cpp's default).
pub const SMALL_UBATCH: u32 = 512;

/// Most that is chosen: beyond that, computing takes longer than any disk.
const LARGE_UBATCH: u32 = 4096;

/// A larger ubatch may take one part in so many of the cache of streamed weights: hit rates then fall by about a point.
const CACHE_SHARE: u64 = 32;

/// The largest ubatch, from what is asked for upwards, whose memory the cache hardly misses. What is asked for, where nothing
/// streams or no plan works. `request` makes a request of what llama.cpp needs.
#[must_use]
pub fn choose_ubatch(
    shape: &ModelShape,
    layout: &ExpertLayout,
    context: &ContextRequest,
    request: impl Fn(Fixed) -> Request,
) -> u32 {
    let asked = context.ubatch_tokens;
    let planned = |ubatch_tokens| {
        let fixed = estimate_fixed(shape, &ContextRequest { ubatch_tokens, ..*context }).ok()?;
        plan(shape, layout, &request(fixed)).ok()
    };
    let Some(small) = planned(asked).filter(|plan| plan.mode != Mode::FullResident) else { return asked };
    let held = held_bytes(shape, &small);
    let costs_little = |ubatch_tokens| {
        planned(ubatch_tokens).is_some_and(|plan| {
            plan.mode == small.mode && held.saturating_sub(held_bytes(shape, &plan)) <= held / CACHE_SHARE
        })
    };
    let largest = LARGE_UBATCH.min(context.context_tokens);
    let halves = std::iter::successors(Some(largest), |ubatch| Some(ubatch / 2));
    halves.take_while(|ubatch| *ubatch > asked).find(|ubatch| costs_little(*ubatch)).unwrap_or(asked)
}

/// Bytes of the weights that can stream and have room in memory.
fn held_bytes(shape: &ModelShape, plan: &Plan) -> u64 {
    let experts = if plan.mode.streams_experts() { shape.routed_bytes() } else { 0 };
    let dense = plan.streamable_bytes.saturating_sub(experts + plan.streamed_dense_bytes(shape));
    plan.slot_bytes + dense
}

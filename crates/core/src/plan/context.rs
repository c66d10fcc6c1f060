//! How long a context is when nobody says.
//!
//! Conversations and agents want a long one, but a KV cache takes its memory when the model is loaded, from
//! the weights of this model and of others. So it is as long as it costs little.

use super::ledger::Purpose;
use super::request::{Constraints, ContextShape};
use super::ubatch::hardly_less_in_memory;
use super::{ExpertLayout, Plan, estimate_needs, fill};
use crate::model::ModelShape;

/// What a longer context takes beyond the short one is at most one part in so many of the budget.
const BUDGET_SHARE: u64 = 8;

/// The longest context, from what is asked for upwards, whose memory is hardly missed: a power of two, or the
/// length of training. What llama.cpp needs is estimated, whatever is measured later, so that a model gets
/// the same context wherever its header is; `constraints` are those that its plan will be held to.
pub(super) fn choose_context(shape: &ModelShape, layout: &ExpertLayout, constraints: &Constraints) -> u32 {
    let asked = constraints.context.context_tokens;
    let trained = u32::try_from(shape.context_train).unwrap_or(u32::MAX);
    let planned = |context_tokens: u32| {
        let context = ContextShape { context_tokens, ..constraints.context };
        let mut needs = estimate_needs(shape, &context).ok()?;
        constraints.needs.entries().iter().for_each(|entry| needs.add(*entry));
        fill(shape, layout, &Constraints { context, needs, ..constraints.clone() }).ok()
    };
    let Some(short) = planned(asked) else { return asked };
    let most_bytes = constraints.pools.host_budget_bytes() / BUDGET_SHARE;
    let costs_little = |tokens: u32| {
        planned(tokens).is_some_and(|long| {
            let more_bytes = context_bytes(&long).saturating_sub(context_bytes(&short));
            more_bytes <= most_bytes && hardly_less_in_memory(shape, &short, &long)
        })
    };
    let shorter = |tokens: &u32| Some(tokens.saturating_sub(1).checked_ilog2().map_or(0, |log| 1 << log));
    let lengths = std::iter::successors(Some(trained), shorter);
    lengths.take_while(|tokens| *tokens > asked).find(|tokens| costs_little(*tokens)).unwrap_or(asked)
}

/// Bytes of a plan that depend on its context.
fn context_bytes(plan: &Plan) -> u64 {
    plan.ledger.bytes_for(Purpose::Kv).saturating_add(plan.ledger.bytes_for(Purpose::Compute))
}

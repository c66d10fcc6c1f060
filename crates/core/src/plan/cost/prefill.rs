//! The prompt, in ubatches: each reads what it needs once, in file order, while it computes.

use super::compute::Rates;
use super::disk::{Disk, READER_DEPTH};
use super::prediction::NOISE;
use super::tables::RowReads;
use super::{CostInput, Estimate, PrefillCost};
use crate::model::ExpertLayer;
use crate::profile::Pattern;
use crate::roofline::Times;

/// Sums over the ubatches.
#[derive(Default)]
struct Total {
    time_s: f64,
    compute_s: f64,
    read_s: f64,
    read_bytes: f64,
}

pub(super) fn prefill(input: &CostInput<'_>, rates: &Rates<'_>, disk: &Disk<'_>) -> Option<PrefillCost> {
    let prompt = input.workload.prompt_tokens;
    let ubatch = input.workload.ubatch_tokens.max(1);
    let mut total = Total::default();
    let mut past = 0;
    while past < prompt {
        let tokens = ubatch.min(prompt - past);
        step(input, rates, disk, tokens, past, &mut total)?;
        past += tokens;
    }
    if total.time_s <= 0.0 {
        return None;
    }
    let first_token_s = Estimate::around(total.time_s, NOISE);
    Some(PrefillCost {
        tokens_per_s: first_token_s.inverse(f64::from(prompt)),
        first_token_s,
        compute_s: total.compute_s,
        link_s: 0.0,
        read_s: total.read_s,
        read_bytes: total.read_bytes,
        bound: Times { read_s: total.read_s, compute_s: total.compute_s, sync_s: 0.0 }.bound_by(),
    })
}

fn step(
    input: &CostInput<'_>,
    rates: &Rates<'_>,
    disk: &Disk<'_>,
    tokens: u32,
    past: u32,
    total: &mut Total,
) -> Option<()> {
    let (dense_s, experts_s) = rates.batch(input.shape, f64::from(tokens), f64::from(past));
    let compute_s = dense_s + experts_s;
    // A GPU's frames are filled while others are computed with.
    let on_gpu = rates.computes_streamed_on_gpu();
    let upload_s = rates.upload_s(if on_gpu { touched_bytes(input, tokens) } else { 0.0 })?;
    let expert_bytes = if input.plan.experts.is_some() { missing_bytes(input, tokens) } else { 0.0 };
    let ring_bytes = input.plan.streamed_dense_bytes(input.shape) as f64;
    let expert_read_s = disk.seconds(Pattern::Sequential, expert_bytes, READER_DEPTH)?;
    let read_s = expert_read_s + disk.seconds(Pattern::Sequential, ring_bytes, READER_DEPTH)?;
    // Reads of a layer's experts start when its router has answered, so only experts are computed meanwhile.
    // The ring reads all the time, from the same disk.
    let touch_s = touch_s(input, expert_bytes, total.read_bytes);
    let rows = RowReads::of(input, rates, disk, f64::from(tokens))?;
    let ring_s = rates.upload_s(input.plan.uploaded_dense_bytes(input.shape) as f64)?.max(read_s);
    let layers_s = (dense_s + experts_s.max(expert_read_s).max(upload_s)).max(ring_s).max(touch_s);
    total.time_s += rows.read_s + layers_s;
    total.compute_s += compute_s;
    total.read_s += rows.read_s + read_s;
    total.read_bytes += rows.bytes + expert_bytes + ring_bytes;
    Some(())
}

/// What is read goes to slots that nobody has touched, as long as there are some. The system gives the memory
/// while other reads are under way.
fn touch_s(input: &CostInput<'_>, bytes: f64, before: f64) -> f64 {
    let untouched = (input.plan.slot_bytes() as f64 - before).max(0.0);
    let touched = input.plan.resident_bytes() as f64 + before;
    input.profile.memory.touch_s(touched, bytes.min(untouched))
}

/// Experts that a ubatch touches, less those in memory. Of many tokens nearly all experts are touched, so
/// that the hit rate is the share of experts in memory; the skew of routers is left out, which errs on the
/// slow side.
fn missing_bytes(input: &CostInput<'_>, tokens: u32) -> f64 {
    touched_bytes(input, tokens) * (1.0 - input.plan.expert_fraction(input.layout))
}

/// Experts that a ubatch touches.
fn touched_bytes(input: &CostInput<'_>, tokens: u32) -> f64 {
    let touched = |layer: &ExpertLayer| {
        let untouched = 1.0 - f64::from(layer.used) / f64::from(layer.experts.max(1));
        f64::from(layer.experts) * (1.0 - untouched.powf(f64::from(tokens))) * layer.expert_bytes() as f64
    };
    input.shape.expert_layers.iter().map(touched).sum()
}

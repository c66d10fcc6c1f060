//! What an answer came to beside what was predicted of it, for the plans to come.

use hypura_core::audit::{Record, Tiers};
use hypura_core::plan::{CostInput, Routing, Workload};
use hypura_engine::load::LoadedModel;
use hypura_engine::profile::{add_record, cache_folder, unix_now_s};

use super::stats::Stats;
use crate::cli::profile::known_beside;

/// Remembers an answer, where something was predicted of it. Nobody needs to know when that fails.
pub(super) fn remember(loaded: &LoadedModel, stats: &Stats) {
    if let (Some(folder), Some(record)) = (cache_folder(), record(loaded, stats)) {
        let _ = add_record(&folder, record);
    }
}

fn record(loaded: &LoadedModel, stats: &Stats) -> Option<Record> {
    let planned = &loaded.planned;
    let is_usual = planned.gpu.is_none()
        && planned.workers.is_empty()
        && stats.speculation.is_none()
        && stats.routes.is_none();
    let tokens_per_s = stats.decode_tps.filter(|_| is_usual)?;
    let shape = &planned.source.shape;
    let profile = known_beside(&planned.source.path, planned.settings.tuning.threads)?;
    // The first token is that of the prompt.
    let tokens = stats.generated_tokens.saturating_sub(1) as f64;
    let decode = &stats.decode;
    let bytes = decode.bytes_read as f64;
    let measured = Tiers {
        tokens_per_s,
        compute_s: Some(decode.compute_ms.unwrap_or(stats.decode_ms) * 1e-3 / tokens),
        read_bytes: Some(bytes / tokens),
        disk_bytes_per_s: (bytes > 0.0).then(|| bytes / (decode.disk_busy_ms * 1e-3)),
        hit_rate: decode.hit_rate,
    };
    let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
    let workload = Workload {
        prompt_tokens: count(stats.prompt_tokens),
        generated_tokens: count(stats.generated_tokens),
        ubatch_tokens: planned.plan.context.ubatch_tokens,
        routing: Routing::of(shape),
        ..Workload::default()
    };
    let (layout, plan) = (&planned.layout, &planned.plan);
    let input = CostInput { shape, layout, plan, profile: &profile, workload };
    Record::of(&input, measured, stats.generated_tokens as u64, stats.was_disturbed, unix_now_s())
}

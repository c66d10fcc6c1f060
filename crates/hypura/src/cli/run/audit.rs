//! What an answer came to beside what was predicted of it, for the plans to come.

use hypura_core::audit::{Record, Tiers};
use hypura_core::plan::{CostInput, Routing, Workload};
use hypura_engine::load::LoadedModel;
use hypura_engine::profile::{DISTURBED_SHARE, Need, add_record, cache_folder, known};
use std::time::SystemTime;

use super::stats::Stats;
use crate::cli::profile::disk_target;

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
    let path = &planned.source.path;
    let target = disk_target(Some(path), path.metadata().map_or(0, |metadata| metadata.len()));
    let need = Need { target: &target, threads: planned.settings.tuning.threads, disk: true };
    let profile = known(&cache_folder()?, &need)?;
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
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    Record::of(&input, measured, stats.generated_tokens as u64, was_disturbed(stats), now)
}

/// Whether threads waited for cores for a tenth of the time, or fewer of them computed.
fn was_disturbed(stats: &Stats) -> bool {
    let used = &stats.threads_used;
    let waited = used.waited_ms.unwrap_or(0.0) / f64::from(stats.threads.max(1));
    let fewer = used.compute_ms_with_fewer > DISTURBED_SHARE * used.compute_ms;
    fewer || waited > DISTURBED_SHARE * used.compute_ms
}

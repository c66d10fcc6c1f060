//! The arms without Hypura: llama.cpp in a bare loop of decode calls, counted as the others are.

use anyhow::bail;
use hypura_engine::baseline::Baseline;
use hypura_engine::load::LoadSettings;
use hypura_engine::machine;
use hypura_engine::stream::StreamStats;
use std::path::Path;
use std::time::{Duration, Instant};

use super::arm::Arm;
use super::snapshot::{Snapshot, process_cpu_s};
use super::work::{ArmRun, Work, ms};

/// Runs a baseline. `device` is the disk of the model, by its name in `/sys/block`.
///
/// # Errors
/// What llama.cpp says; routes that it cannot be given.
pub(super) fn run_arm(
    path: &Path,
    arm: Arm,
    settings: &LoadSettings,
    work: &Work,
    device: Option<&str>,
) -> anyhow::Result<ArmRun> {
    if settings.tuning.routes.is_active() {
        bail!("llama.cpp alone cannot be given routes: leave {} out of --against", arm.name());
    }
    let start = Instant::now();
    let Some((weights, experts)) = arm.baseline(work.moe_cache_bytes) else {
        bail!("{} is no baseline", arm.name());
    };
    let mut model = Baseline::open(path, settings, weights, experts)?;
    let load_ms = ms(start.elapsed());
    let load_cpu_ms = process_cpu_s().map(|seconds| seconds * 1e3);
    let tokens = work.tokens(model.vocab_size());
    let take = || Snapshot::take(StreamStats::default(), device);
    let begin = take();
    let prefill = model.prefill(&tokens[..work.prompt])?;
    let prefilled = take();
    let mut decode = |count: usize, from: usize| -> anyhow::Result<Vec<Duration>> {
        let positions = from..from + count;
        positions.map(|position| Ok(model.decode(tokens[position], position)?)).collect()
    };
    decode(work.warmup, work.prompt)?;
    let before = take();
    let times = decode(work.generate, work.prompt + work.warmup)?;
    let after = take();
    let decode_s = times.iter().map(Duration::as_secs_f64).sum();
    let soaked =
        (work.soak_s > 0).then(|| "llama.cpp alone does not soak: that is about Hypura's memory".to_owned());
    Ok(ArmRun {
        mode: arm.name().to_owned(),
        reader: None,
        notes: soaked.into_iter().collect(),
        budget_bytes: None,
        planned_bytes: None,
        streamable_bytes: 0,
        cached_fraction: 1.0,
        load_ms,
        prepare_ms: 0.0,
        load_cpu_ms,
        prefill: prefilled.since(&begin, work.prompt as u64, prefill.as_secs_f64()),
        decode: after.since(&before, work.generate as u64, decode_s),
        token_ms: times.into_iter().map(ms).collect(),
        peak_rss_bytes: machine::peak_rss_bytes().ok(),
        soak: None,
    })
}

//! One arm in a process of its own: loads, computes the prompt, then forced tokens, and tells what was
//! counted.
//!
//! The parent holds the child's stdin: a line on it says go (by then the parent has put the child where it
//! belongs), and its end means that the parent is gone, and the child goes, too.

use anyhow::{Context as _, bail};
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::request::Outcome;
use hypura_engine::session::{GenerateOptions, Session, open};
use hypura_engine::source::ModelSource;
use hypura_engine::{SamplerOptions, machine};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::alone;
use super::arm::Arm;
use super::snapshot::{Phase, Snapshot, process_cpu_s};
use super::soak::soak;
use super::work::{ArmRun, Work, ms};

/// Waits for the parent's word, and from then on watches for its end.
///
/// # Errors
/// When the parent exited before it gave the word.
pub fn wait_for_go() -> anyhow::Result<()> {
    let mut line = String::new();
    let got = io::stdin().read_line(&mut line).context("cannot hear the benchmark that started this")?;
    if got == 0 {
        bail!("this is a part of `hypura bench` and does nothing by itself");
    }
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        // An end and an error mean the same: nobody waits for the result any more.
        let _ = io::stdin().read_to_end(&mut rest);
        std::process::exit(1);
    });
    Ok(())
}

/// Runs an arm. `device` is the disk of the model, by its name in `/sys/block`.
///
/// # Errors
/// What loading or decoding says.
pub fn run_arm(
    path: &Path,
    arm: Arm,
    asked: LoadSettings,
    work: &Work,
    device: Option<&str>,
) -> anyhow::Result<ArmRun> {
    let start = Instant::now();
    let settings = arm.settings(asked);
    if arm.baseline(work.moe_cache_bytes).is_some() {
        return alone::run_arm(path, arm, &settings, work, device);
    }
    let planned = prepare(ModelSource::open(path)?, settings)?;
    let prepare_ms = ms(start.elapsed());
    let plan = &planned.plan;
    let run = ArmRun {
        mode: plan.mode().name().to_owned(),
        reader: None,
        notes: Vec::new(),
        budget_bytes: arm.has_budget().then_some(plan.budget_bytes()),
        planned_bytes: arm.has_budget().then(|| plan.total_bytes()),
        streamable_bytes: plan.streamable_bytes(),
        cached_fraction: plan.cached_fraction(&planned.source.shape, &planned.layout),
        load_ms: 0.0,
        prepare_ms,
        load_cpu_ms: None,
        prefill: empty_phase(),
        decode: empty_phase(),
        token_ms: Vec::new(),
        peak_rss_bytes: None,
        soak: None,
    };
    let session = open(planned, &mut |_, _| {})?;
    let load_ms = ms(start.elapsed());
    let run = ArmRun {
        reader: session.loaded().reader.map(str::to_owned),
        notes: session.loaded().notes.clone(),
        load_ms,
        load_cpu_ms: process_cpu_s().map(|seconds| seconds * 1e3),
        ..run
    };
    measure(session, work, device, run)
}

fn measure(mut session: Session, work: &Work, device: Option<&str>, run: ArmRun) -> anyhow::Result<ArmRun> {
    let tokens = work.tokens(session.vocab().len());
    let (prompt, forced) = tokens.split_at(work.prompt);
    let options = GenerateOptions {
        max_tokens: u32::try_from(forced.len()).ok(),
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        forced: Some(forced.to_vec()),
        ignore_end: true,
        ..GenerateOptions::default()
    };
    let stats = std::sync::Arc::clone(&session.loaded().stats);
    let take = || Snapshot::take(stats.get(), device);
    let begin = take();
    // The sink is called once for each token, after the one before was decoded: that is where the phases
    // meet.
    let (mut shown, mut marks) = (0, Vec::new());
    let outcome = session.generate(prompt, &options, &mut |_| {
        if shown == 0 || shown == work.warmup || shown == work.warmup + work.generate {
            marks.push(take());
        }
        shown += 1;
        Ok(())
    })?;
    let (Some(prefilled), [.., before, after]) = (marks.first(), marks.as_slice()) else {
        bail!("the generation ended after {shown} of {} tokens", forced.len());
    };
    let measured = measured_times(&outcome, work)?;
    let decode_s = measured.iter().map(Duration::as_secs_f64).sum();
    let phases = ArmRun {
        prefill: prefilled.since(&begin, work.prompt as u64, outcome.prefill.as_secs_f64()),
        decode: after.since(before, work.generate as u64, decode_s),
        token_ms: measured.iter().copied().map(ms).collect(),
        ..run
    };
    let soaked = match work.soak_s {
        0 => None,
        seconds => Some(soak(&mut session, Duration::from_secs(seconds), work.seed)?),
    };
    Ok(ArmRun { peak_rss_bytes: machine::peak_rss_bytes().ok(), soak: soaked, ..phases })
}

/// Times of the measured tokens, without those of the warm-up.
fn measured_times<'a>(outcome: &'a Outcome, work: &Work) -> anyhow::Result<&'a [Duration]> {
    let times = outcome.token_times.get(work.warmup..work.warmup + work.generate);
    times.with_context(|| format!("only {} tokens were decoded", outcome.token_times.len()))
}

fn empty_phase() -> Phase {
    let now = Snapshot::take(hypura_engine::stream::StreamStats::default(), None);
    now.since(&now, 0, 0.0)
}

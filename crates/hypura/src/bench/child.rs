//! One arm in a process of its own: loads, computes the prompt, then forced tokens, and tells what was counted.
//!
//! The parent holds the child's stdin: a line on it says go (by then the parent has put the child where it belongs), and
//! its end means that the parent is gone, and the child goes, too.

use anyhow::{Context as _, bail};
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::request::Outcome;
use hypura_engine::session::{GenerateOptions, Session, open};
use hypura_engine::source::ModelSource;
use hypura_engine::{SamplerOptions, Token, machine};
use serde::{Deserialize, Serialize};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::alone;
use super::arm::Arm;
use super::snapshot::{Phase, Snapshot, process_cpu_s};
use super::soak::{Soak, soak};
use super::tokens::RandomTokens;

/// What an arm computes; the same in every arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens decoded after it before the measurement begins.
    pub warmup: usize,
    /// Tokens decoded and measured.
    pub generate: usize,
    /// Seed of all tokens.
    pub seed: u64,
    /// After that, prompts of many lengths for so many seconds.
    #[serde(default)]
    pub soak_s: u64,
}

/// What an arm did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmRun {
    /// How the model ran, as the plan names it.
    pub mode: String,
    /// Name of the reader; `None` when nothing was read by ours.
    pub reader: Option<String>,
    /// What the loader had to say.
    pub notes: Vec<String>,
    /// The budget; `None` for arms without one.
    pub budget_bytes: Option<u64>,
    /// What the plan expected to use; `None` for arms without a budget.
    pub planned_bytes: Option<u64>,
    /// Weights that can stream in this mode.
    pub streamable_bytes: u64,
    /// Their share with room in memory.
    pub cached_fraction: f64,
    /// Opening, planning and loading.
    pub load_ms: f64,
    /// Of that, opening and planning: no weights are read.
    #[serde(default)]
    pub prepare_ms: f64,
    /// Processor time of loading, in milliseconds.
    #[serde(default)]
    pub load_cpu_ms: Option<f64>,
    /// The prompt.
    pub prefill: Phase,
    /// The measured tokens.
    pub decode: Phase,
    /// Time of each measured token.
    pub token_ms: Vec<f64>,
    /// The largest resident set of the process (mapped pages of files included).
    pub peak_rss_bytes: Option<u64>,
    /// What came after the measured tokens, if anything.
    #[serde(default)]
    pub soak: Option<Soak>,
}

impl Work {
    /// Positions that the context must hold: the last token's logits are never used, but it is decoded.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.prompt + self.warmup + self.generate + 1
    }

    /// Pseudo-random tokens, the same for the same seed and vocabulary.
    pub(super) fn tokens(&self, vocab: usize) -> Vec<Token> {
        let mut random = RandomTokens::new(self.seed);
        (0..self.positions()).map(|_| random.token(vocab)).collect()
    }
}

/// Waits for the parent's word, and from then on watches for its end.
///
/// # Errors
/// When the parent went away before it gave the word.
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
    if let Some(weights) = arm.baseline() {
        return alone::run_arm(path, arm, weights, &settings, work, device);
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
    // The sink is called once for each token, after the one before was decoded: that is where the phases meet.
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

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let work = Work { prompt: 20, warmup: 3, generate: 40, seed: 7, soak_s: 0 };
        let tokens = work.tokens(1000);
        assert_eq!(tokens.len(), 64);
        assert_eq!(tokens, work.tokens(1000));
        assert_ne!(tokens, Work { seed: 8, ..work }.tokens(1000));
        let longer = Work { generate: 50, ..work }.tokens(1000);
        assert!(longer.starts_with(&tokens), "more tokens change none of those before");
    }

    proptest! {
        #[test]
        fn tokens_are_of_the_vocabulary(seed: u64, vocab in 1usize..200_000) {
            let work = Work { prompt: 5, warmup: 1, generate: 5, seed, soak_s: 0 };
            prop_assert!(work.tokens(vocab).iter().all(|token| (0..vocab as i64).contains(&i64::from(*token))));
        }
    }
}

//! Traces against policies and cache sizes, in numbers.
//!
//! Everything is counted over the generated tokens, on a cache that has seen the prompt: that is what a user
//! waits for.

use hypura_core::cache::{EvictionPolicy, ExpertCache, PolicyKind};
use hypura_core::roofline::BoundBy;
use hypura_core::sim::{Machine, Replay, ReplayOptions, belady_for, replay};
use hypura_core::trace::{Phase, Trace};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::thread;

use crate::cli::flags::policy_about;

/// Who is evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// As the engine can.
    Real(PolicyKind),
    /// The optimum.
    Belady,
}

/// How large the cache is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CacheSizes {
    /// Of all experts.
    Percent(Vec<f64>),
    /// In memory.
    Bytes(Vec<u64>),
}

/// What to simulate.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub policies: Vec<Policy>,
    pub sizes: CacheSizes,
    pub ubatch: u32,
    pub disk_bytes_per_s: Option<f64>,
    pub compute_ms: Option<f64>,
}

/// The answer; what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub disk_bytes_per_s: Option<f64>,
    pub compute_ms: Option<f64>,
    pub ubatch: u32,
    pub traces: Vec<TraceReport>,
}

/// One trace.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TraceReport {
    pub file: PathBuf,
    pub model: String,
    /// Layers with routed experts.
    pub layers: usize,
    /// Experts of a layer.
    pub experts: u32,
    /// Most experts that a token uses in a layer.
    pub used: u32,
    pub expert_bytes: u64,
    /// Experts of all layers.
    pub all_experts: u64,
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    /// *A*: bytes of the experts that a generated token uses, on average.
    pub routed_bytes_per_token: f64,
    pub results: Vec<Row>,
}

/// One policy at one size.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub policy: &'static str,
    pub slots: u32,
    pub cache_bytes: u64,
    /// Slots for each expert of the model.
    pub cache_fraction: f64,
    pub hits: u64,
    pub misses: u64,
    pub hit_rate: f64,
    /// Hit rate of the optimum, less this one.
    pub behind_belady: f64,
    pub bytes_read_per_token: f64,
    /// `None` without a disk, or when nothing limits.
    pub tokens_per_s: Option<f64>,
    /// What limits it.
    pub bound_by: Option<BoundBy>,
}

impl Policy {
    pub const LFRU: Self = Self::Real(PolicyKind::Lfru);
    pub const LRU: Self = Self::Real(PolicyKind::Lru);
    pub const S3_FIFO: Self = Self::Real(PolicyKind::S3Fifo);
    /// The default first, the optimum last.
    pub const ALL: [Self; 4] = [Self::LFRU, Self::LRU, Self::S3_FIFO, Self::Belady];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Real(kind) => kind.name(),
            Self::Belady => "belady",
        }
    }

    /// The policy in a few words.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Real(kind) => policy_about(kind),
            Self::Belady => "The one needed again last: the optimum, for those who know the future",
        }
    }

    fn build(self, slots: u32, trace: &Trace, options: ReplayOptions) -> Box<dyn EvictionPolicy + Send> {
        match self {
            Self::Real(kind) => kind.build(slots, trace.header.layers),
            Self::Belady => Box::new(belady_for(trace, slots, options)),
        }
    }
}

impl Report {
    pub fn new(asked: &Asked) -> Self {
        Self {
            disk_bytes_per_s: asked.disk_bytes_per_s,
            compute_ms: asked.compute_ms,
            ubatch: asked.ubatch,
            traces: Vec::new(),
        }
    }
}

/// Replays a trace at every size and policy.
///
/// # Errors
/// When nothing was generated in it.
pub(super) fn simulate(path: &Path, trace: &Trace, asked: &Asked) -> anyhow::Result<TraceReport> {
    let header = &trace.header;
    let layers = trace.expert_layers().len();
    let mut report = TraceReport {
        file: path.to_owned(),
        // It comes from a file and goes to a terminal.
        model: header.model.chars().filter(|letter| !letter.is_control()).take(80).collect(),
        layers,
        experts: header.experts,
        used: header.used,
        expert_bytes: header.expert_bytes,
        all_experts: layers as u64 * u64::from(header.experts),
        prompt_tokens: trace.tokens.iter().filter(|token| token.phase == Phase::Prefill).count(),
        generated_tokens: trace.tokens.iter().filter(|token| token.phase == Phase::Decode).count(),
        routed_bytes_per_token: 0.0,
        results: Vec::new(),
    };
    let sizes = slots(&asked.sizes, report.all_experts, header.expert_bytes);
    report.results = thread::scope(|scope| {
        let threads: Vec<_> = sizes
            .iter()
            .map(|slots| {
                let report = &report;
                scope.spawn(move || rows(trace, report, asked, *slots))
            })
            .collect();
        let finished = threads.into_iter().map(|thread| match thread.join() {
            Ok(rows) => rows,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        finished.collect::<Vec<_>>().concat()
    });
    let lookups = report.results.first().map_or(0, |row| row.hits + row.misses);
    anyhow::ensure!(lookups > 0, "it has no generated tokens, and their speed is what is asked");
    report.routed_bytes_per_token = per_token(lookups, &report);
    Ok(report)
}

/// Slots of each size, ascending, each once.
fn slots(sizes: &CacheSizes, all_experts: u64, expert_bytes: u64) -> Vec<u32> {
    let mut slots: Vec<u64> = match sizes {
        CacheSizes::Percent(list) => {
            list.iter().map(|percent| (all_experts as f64 * percent / 100.0).round() as u64).collect()
        }
        CacheSizes::Bytes(list) => list.iter().map(|bytes| bytes / expert_bytes.max(1)).collect(),
    };
    slots.sort_unstable();
    let mut slots: Vec<u32> =
        slots.into_iter().filter_map(|slots| u32::try_from(slots.min(all_experts)).ok()).collect();
    slots.dedup();
    slots
}

/// One size under each policy. The optimum is computed in any case: every row says how far from it it is.
fn rows(trace: &Trace, report: &TraceReport, asked: &Asked, slots: u32) -> Vec<Row> {
    let options = ReplayOptions { ubatch_tokens: asked.ubatch };
    let run = |policy: Policy| {
        let mut cache = ExpertCache::new(slots, policy.build(slots, trace, options));
        replay(trace, &mut cache, options)
    };
    let optimum = run(Policy::Belady);
    let best = optimum.decode.hit_rate().unwrap_or(0.0);
    let row = |policy: &Policy| {
        let result = if *policy == Policy::Belady { optimum } else { run(*policy) };
        row(*policy, slots, &result, best, report, asked)
    };
    asked.policies.iter().map(row).collect()
}

fn row(policy: Policy, slots: u32, result: &Replay, best: f64, report: &TraceReport, asked: &Asked) -> Row {
    let hit_rate = result.decode.hit_rate().unwrap_or(0.0);
    let prediction = asked.disk_bytes_per_s.and_then(|disk_bytes_per_s| {
        let compute_s = asked.compute_ms.unwrap_or(0.0) / 1e3;
        result.predict(&Machine { compute_s, disk_bytes_per_s, disk_latency_s: 0.0 })
    });
    let prediction = prediction.filter(|prediction| prediction.tokens_per_s.is_finite());
    Row {
        policy: policy.name(),
        slots,
        cache_bytes: u64::from(slots) * report.expert_bytes,
        cache_fraction: f64::from(slots) / report.all_experts.max(1) as f64,
        hits: result.decode.hits,
        misses: result.decode.misses(),
        hit_rate,
        behind_belady: best - hit_rate,
        bytes_read_per_token: per_token(result.decode.reads(), report),
        tokens_per_s: prediction.map(|prediction| prediction.tokens_per_s),
        bound_by: prediction.map(|prediction| prediction.bound),
    }
}

fn per_token(experts: u64, report: &TraceReport) -> f64 {
    experts as f64 * report.expert_bytes as f64 / report.generated_tokens.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_slots_each_once_and_never_more_than_there_are_experts() {
        let percent = CacheSizes::Percent(vec![50.0, 5.0, 100.0, 50.0]);
        assert_eq!(slots(&percent, 1000, 1), [50, 500, 1000]);
        let bytes = CacheSizes::Bytes(vec![999, 10_000, u64::MAX, 0]);
        assert_eq!(slots(&bytes, 64, 1000), [0, 10, 64]);
    }
}

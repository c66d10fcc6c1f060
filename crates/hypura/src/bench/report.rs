//! The result of a benchmark as a program reads it. benchmarks/README.md documents the fields; [`FORMAT`]
//! changes with their meaning.

use hypura_core::roofline::BoundBy;
use serde::{Deserialize, Serialize};

use super::arm::Arm;
use super::disk::{Bandwidth, CacheState, ReadAheadReport};
use super::prediction::{Prediction, PredictionError};
use super::roofline::Roofline;
use super::stats::Spread;
use super::work::{ArmRun, Work};

/// Version of this format.
pub const FORMAT: u32 = 2;

/// A whole benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of hypura.
    pub hypura: String,
    /// The llama.cpp inside.
    pub ggml: String,
    /// When it began, in seconds since 1970.
    pub unix_time_s: u64,
    /// On what.
    pub machine: Machine,
    /// Which model.
    pub model: Model,
    /// What was computed and how.
    pub settings: Settings,
    /// The disk under the model.
    pub disk: Disk,
    /// The arms, the one that is measured first.
    pub arms: Vec<ArmSummary>,
    /// The measured arm against each of the others.
    pub comparisons: Vec<Comparison>,
    /// What a reader of these figures must know.
    pub warnings: Vec<String>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system.
    pub os: String,
    /// Instruction set.
    pub arch: String,
    /// Name of the processor.
    pub cpu: Option<String>,
    /// Processors that this process may use.
    pub processors: usize,
    /// RAM in bytes.
    pub memory_bytes: Option<u64>,
}

/// The model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name of its file.
    pub file: String,
    /// llama.cpp's name of its architecture.
    pub architecture: String,
    /// Bytes of all its shards.
    pub file_bytes: u64,
    /// A: bytes of the routed experts of one token; 0 in a dense model.
    pub routed_bytes_per_token: u64,
}

/// What was computed and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Tokens.
    pub work: Work,
    /// Rounds.
    pub pairs: usize,
    /// Tokens of context.
    pub context: u32,
    /// Most tokens in one graph.
    pub ubatch: u32,
    /// Threads that compute.
    pub threads: u32,
    /// `--memory`, if given.
    pub memory_bytes: Option<u64>,
    /// `--memcap`, if given.
    pub memcap_bytes: Option<u64>,
    /// How the cap was enforced.
    pub memcap_by: Option<String>,
    /// Trace that forced the routes, if any.
    pub routes: Option<String>,
    /// Acceptance of drafts that was forced, by position, if any.
    #[serde(default)]
    pub accept: Option<String>,
}

/// The disk under the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Type of the file system.
    pub file_system: Option<String>,
    /// Name of the device.
    pub device: Option<String>,
    /// Whether it spins.
    pub rotational: Option<bool>,
    /// What the mmap arm ran with; `None` without that arm.
    pub read_ahead: Option<ReadAheadReport>,
    /// Where runs started.
    pub caches: CacheState,
    /// Raw reads before and after each run of the measured arm, in order.
    pub measured: Vec<Bandwidth>,
    /// The spread of those, in bytes per second.
    pub bytes_per_s: Option<Spread>,
}

/// All runs of an arm, and what they amount to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    /// Which.
    pub arm: Arm,
    /// How the model ran.
    pub mode: String,
    /// The cap that it ran under; `None` for none.
    pub memcap_bytes: Option<u64>,
    /// Prompt tokens per second over the runs.
    pub prefill_tps: Option<Spread>,
    /// Decoded tokens per second over the runs.
    pub decode_tps: Option<Spread>,
    /// Median time of a token over all runs, in milliseconds.
    pub token_ms_p50: Option<f64>,
    /// 99th percentile of it.
    pub token_ms_p99: Option<f64>,
    /// Median time of opening, planning and loading.
    pub load_ms: Option<f64>,
    /// Bytes per decoded token that our reader got; `None` for arms that do not stream.
    pub read_bytes_per_token: Option<f64>,
    /// The same as the kernel counts it for the process.
    pub kernel_read_bytes_per_token: Option<f64>,
    /// Share of the lookups of decoded tokens that hit.
    pub hit_rate: Option<f64>,
    /// Share of the missed experts of decoded tokens that were read before they were asked for.
    pub prefetched_share: Option<f64>,
    /// Waiting for the disk, per decoded token.
    pub read_stall_ms_per_token: Option<f64>,
    /// Processor time of computing threads, per decoded token.
    pub cpu_compute_ms_per_token: Option<f64>,
    /// Processor time of reading threads, per decoded token.
    pub cpu_reader_ms_per_token: Option<f64>,
    /// The largest resident set of all runs.
    pub peak_rss_bytes: Option<u64>,
    /// The most that was charged to the control group in any run.
    pub cgroup_peak_bytes: Option<u64>,
    /// The budget.
    pub budget_bytes: Option<u64>,
    /// What the plan expected to use.
    pub planned_bytes: Option<u64>,
    /// Median efficiency against the roofline of each run.
    pub efficiency: Option<Spread>,
    /// What bound the measured tokens of most runs; `None` for arms that do not stream.
    pub bound_by: Option<BoundBy>,
    /// What was predicted before anything ran.
    pub predicted: Option<Prediction>,
    /// How far off that was.
    pub prediction_error: Option<PredictionError>,
    /// What would have been predicted with the hit rate that was measured.
    pub predicted_given_hits: Option<Prediction>,
    /// How far off that is.
    pub error_given_hits: Option<PredictionError>,
    /// Runs that something else on the machine disturbed.
    pub disturbed: usize,
    /// Every run in the order of rounds.
    pub runs: Vec<Run>,
}

/// One run of an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Round, from 0.
    pub round: usize,
    /// What the process said.
    #[serde(flatten)]
    pub arm: ArmRun,
    /// The most that was charged to its control group.
    pub cgroup_peak_bytes: Option<u64>,
    /// What disk and processor would have allowed.
    pub roofline: Option<Roofline>,
    /// What disturbed it, if anything.
    pub disturbed: Option<String>,
}

/// The measured arm against another one: ratios of speeds in the same round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The other arm.
    pub against: Arm,
    /// Decode speed over that of the other arm.
    pub decode: Option<Spread>,
    /// The same for each round.
    pub decode_by_round: Vec<f64>,
    /// Prefill speed over that of the other arm.
    pub prefill: Option<Spread>,
}

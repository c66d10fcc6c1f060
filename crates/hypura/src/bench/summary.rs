//! From runs to figures: medians over runs, ratios within rounds, efficiency against the limits of each run.

use hypura_core::plan::human_bytes;
use hypura_core::roofline::{BoundBy, Reads};

use super::arm::Arm;
use super::report::{ArmSummary, Comparison, Run};
use super::roofline::{ComputeSource, Roofline};
use super::snapshot::Phase;
use super::stats::{Spread, median, percentile, sorted};

/// What the limits of a run are computed from, beside the run itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of the routed experts that a token uses by the model's own choice; 0 in a dense model.
    pub routed_bytes: u64,
    /// How many experts those are, all layers together.
    pub routed_experts: u64,
    /// C of the resident arm, in seconds, when there was one.
    pub resident_token_s: Option<f64>,
}

impl Limits {
    /// A: bytes of the routed experts of one token. Forced routes may name fewer experts than the model would
    /// choose, so the lookups of the run decide.
    fn routed(&self, decode: &Phase) -> Option<f64> {
        let lookups = (decode.experts_hit + decode.experts_missed) as f64 / decode.tokens as f64;
        (self.routed_experts > 0).then(|| lookups * self.routed_bytes as f64 / self.routed_experts as f64)
    }
}

/// Holds a run against disk and processor. `disk_bytes_per_s` was measured around it. `None` when nothing
/// streamed or something was not measured.
#[must_use]
pub fn roofline(run: &Run, limits: &Limits, disk_bytes_per_s: Option<f64>) -> Option<Roofline> {
    let decode = &run.arm.decode;
    let reads = match run.arm.mode.as_str() {
        "expert-streaming" => {
            Reads::Moe { hit_rate: decode.hit_rate()?, routed_bytes: limits.routed(decode)? }
        }
        "dense-streaming" => Reads::Dense {
            resident_fraction: run.arm.cached_fraction,
            streamable_bytes: run.arm.streamable_bytes as f64,
        },
        _ => return None,
    };
    let same_run = || Some((decode.compute_s? / (decode.tokens as f64), ComputeSource::SameRun));
    let resident = limits.resident_token_s.map(|token_s| (token_s, ComputeSource::ResidentArm));
    let (compute_s, source) = resident.or_else(same_run)?;
    Roofline::new(decode.tps, compute_s, source, &reads, disk_bytes_per_s?)
}

/// Sums up the runs of an arm; `None` when it never ran.
#[must_use]
pub fn summarise(arm: Arm, memcap_bytes: Option<u64>, runs: Vec<Run>) -> Option<ArmSummary> {
    let first = runs.first()?;
    let token_ms = sorted(runs.iter().flat_map(|run| run.arm.token_ms.iter().copied()));
    let per_token = |value: &dyn Fn(&Run) -> Option<f64>| {
        median(runs.iter().filter_map(|run| Some(value(run)? / run.arm.decode.tokens as f64)))
    };
    let streams = first.arm.mode.ends_with("-streaming");
    let when_streaming = |value: f64| streams.then_some(value);
    Some(ArmSummary {
        arm,
        mode: first.arm.mode.clone(),
        memcap_bytes,
        prefill_tps: Spread::of(runs.iter().map(|run| run.arm.prefill.tps)),
        decode_tps: Spread::of(runs.iter().map(|run| run.arm.decode.tps)),
        token_ms_p50: percentile(&token_ms, 50.0),
        token_ms_p99: percentile(&token_ms, 99.0),
        load_ms: median(runs.iter().map(|run| run.arm.load_ms)),
        read_bytes_per_token: per_token(&|run| when_streaming(run.arm.decode.bytes_read as f64)),
        kernel_read_bytes_per_token: per_token(&|run| {
            run.arm.decode.bytes_read_kernel.map(|bytes| bytes as f64)
        }),
        hit_rate: median(runs.iter().filter_map(|run| run.arm.decode.hit_rate())),
        prefetched_share: median(runs.iter().filter_map(|run| prefetched_share(&run.arm.decode))),
        read_stall_ms_per_token: per_token(&|run| when_streaming(run.arm.decode.read_stall_s * 1e3)),
        cpu_compute_ms_per_token: per_token(&|run| Some(run.arm.decode.cpu_compute_s? * 1e3)),
        cpu_reader_ms_per_token: per_token(&|run| Some(run.arm.decode.cpu_reader_s? * 1e3)),
        peak_rss_bytes: runs.iter().filter_map(|run| run.arm.peak_rss_bytes).max(),
        cgroup_peak_bytes: runs.iter().filter_map(|run| run.cgroup_peak_bytes).max(),
        budget_bytes: first.arm.budget_bytes,
        planned_bytes: first.arm.planned_bytes,
        efficiency: Spread::of(runs.iter().filter_map(|run| Some(run.roofline?.efficiency))),
        bound_by: most(runs.iter().filter(|_| streams).filter_map(|run| run.arm.decode.bound_by())),
        predicted: None,
        prediction_error: None,
        predicted_given_hits: None,
        error_given_hits: None,
        disturbed: runs.iter().filter(|run| run.disturbed.is_some()).count(),
        runs,
    })
}

fn prefetched_share(decode: &Phase) -> Option<f64> {
    (decode.experts_missed > 0).then(|| decode.experts_prefetched as f64 / decode.experts_missed as f64)
}

/// Says so if a run took more memory than its budget, and the 3% that a plan may be wrong by.
#[must_use]
pub fn over_budget(run: &Run) -> Option<String> {
    let budget = run.arm.budget_bytes?;
    let peak = run.arm.peak_rss_bytes.max(run.cgroup_peak_bytes)?;
    let over = peak as f64 / budget as f64 - 1.0;
    (over > 0.03).then(|| {
        format!("a run took {:.1}% more memory than its budget of {}", over * 100.0, human_bytes(budget))
    })
}

/// The measured arm against another one, round by round.
#[must_use]
pub fn compare(measured: &ArmSummary, other: &ArmSummary) -> Comparison {
    let ratios = |speed: fn(&Run) -> f64| -> Vec<f64> {
        let of_round = |round: usize| other.runs.iter().find(move |run| run.round == round);
        measured
            .runs
            .iter()
            .filter_map(|run| Some(speed(run) / speed(of_round(run.round)?)))
            .filter(|ratio| ratio.is_finite())
            .collect()
    };
    let decode = ratios(|run| run.arm.decode.tps);
    Comparison {
        against: other.arm,
        decode: Spread::of(decode.iter().copied()),
        decode_by_round: decode,
        prefill: Spread::of(ratios(|run| run.arm.prefill.tps)),
    }
}

/// What most of them are; the disk in doubt.
fn most(bounds: impl Iterator<Item = BoundBy>) -> Option<BoundBy> {
    let bounds: Vec<BoundBy> = bounds.collect();
    let count = |kind: &BoundBy| bounds.iter().filter(|bound| *bound == kind).count();
    // The last of equals is the largest.
    let kinds = [BoundBy::Sync, BoundBy::Compute, BoundBy::Disk];
    kinds.into_iter().max_by_key(count).filter(|_| !bounds.is_empty())
}

#[cfg(test)]
pub(super) mod tests;

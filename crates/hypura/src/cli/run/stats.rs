//! What an answer cost, in numbers: the fields of `--stats-json`.
//!
//! Numbers that were not measured are `None` (`null` in JSON), never zero.

use hypura_core::plan::{Mode, PoolId, Purpose};
use hypura_core::roofline::{BoundBy, Times};
use hypura_engine::load::LoadedModel;
use hypura_engine::request::{Finish, Outcome, SpeculationStats};
use hypura_engine::stream::{Lookups, StreamStats};
use hypura_engine::threads::ThreadUse;
use hypura_engine::workers::{WorkerShare, shares};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// What was known before the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Bytes that the kernel had read for this process before the model was opened.
    pub kernel_read_bytes: Option<u64>,
    /// Bytes that our reader loaded.
    pub loaded_bytes: u64,
}

/// All that was measured; the fields of `--stats-json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Stats {
    pub model: PathBuf,
    pub architecture: String,
    pub mode: &'static str,
    /// `repacked`: llama.cpp may have brought weights into the form its kernels like best; `file-layout`: it
    /// did not.
    pub kernels: &'static str,
    pub reader: Option<&'static str>,
    pub policy: Option<&'static str>,
    /// Threads on a quiet machine.
    pub threads: u32,
    pub threads_used: Threads,
    /// Whether other programs disturbed the computing.
    #[serde(skip)]
    pub was_disturbed: bool,
    pub context: u32,
    pub ubatch: u32,
    pub notes: Vec<String>,
    /// `forced from FILE`; `None` when the routers chose.
    pub routes: Option<String>,

    #[serde(flatten)]
    pub memory: MemoryNumbers,

    pub prompt_tokens: usize,
    pub reused_tokens: usize,
    pub generated_tokens: usize,
    pub token_ids: Vec<i32>,
    pub logits_hash: Option<String>,
    pub finish: &'static str,

    pub load_ms: f64,
    /// From the beginning of the prompt to the first token.
    pub ttft_ms: Option<f64>,
    pub prefill_ms: f64,
    pub prefill_tps: Option<f64>,
    pub decode_ms: f64,
    pub decode_tps: Option<f64>,
    pub token_ms_p50: Option<f64>,
    pub token_ms_p99: Option<f64>,

    /// Lookups while tokens were generated: one for each expert that a token uses.
    pub experts_hit: u64,
    pub experts_missed: u64,
    pub hit_rate: Option<f64>,
    pub evictions: u64,
    /// What became of the experts that were read because a later layer was expected to want them.
    pub predictions: Predictions,
    /// By our reader, loading included.
    pub bytes_read: u64,
    pub bytes_read_load: u64,
    pub bytes_read_prefill: u64,
    pub bytes_read_decode: u64,
    pub bytes_read_per_token: Option<f64>,
    /// What the kernel counted for this process from before loading until now.
    pub bytes_read_kernel: Option<u64>,
    /// Waiting for the disk with nothing to compute.
    pub read_stall_ms: f64,
    /// In graphs, stalls excluded; `None` where llama.cpp runs them unobserved.
    pub compute_ms: Option<f64>,
    pub prefill: Phase,
    pub decode: Phase,
    pub bound_by: BoundBy,
    /// `None` where nothing was drafted.
    pub speculation: Option<SpeculationNumbers>,
}

/// What was planned, and what it came to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MemoryNumbers {
    pub memory_budget_bytes: u64,
    /// The GPU that has layers, how many (the output counted as one), and what they hold there.
    pub device: Option<String>,
    pub device_layers: u32,
    pub device_bytes: u64,
    /// What other machines have, and what their links have carried, loading included.
    pub workers: Vec<WorkerShare>,
    pub peak_rss_bytes: Option<u64>,
    pub floor_bytes: u64,
    pub planned_bytes: u64,
    pub resident_bytes: u64,
    pub streamable_bytes: u64,
    pub cached_fraction: f64,
    pub slots: Vec<u32>,
    pub slot_bytes: u64,
    pub kv_bytes: u64,
    pub compute_bytes: u64,
}

impl MemoryNumbers {
    fn new(loaded: &LoadedModel, peak_rss_bytes: Option<u64>) -> Self {
        let planned = &loaded.planned;
        let plan = &planned.plan;
        Self {
            memory_budget_bytes: plan.budget_bytes(),
            device: loaded.planned.gpu.as_ref().map(|gpu| gpu.info.name.clone()),
            device_layers: plan.homes.device_layers(),
            device_bytes: if plan.pools.has_workers() { 0 } else { loaded.ledger.pool_bytes(PoolId::DEVICE) },
            workers: shares(&planned.workers, &plan.homes, &loaded.ledger),
            peak_rss_bytes,
            floor_bytes: plan.floor_bytes,
            planned_bytes: plan.total_bytes(),
            resident_bytes: plan.resident_bytes(),
            streamable_bytes: plan.streamable_bytes(),
            cached_fraction: plan.cached_fraction(&planned.source.shape, &planned.layout),
            slots: plan.slots(&planned.layout),
            slot_bytes: loaded.ledger.bytes_for(Purpose::Slots),
            kv_bytes: loaded.ledger.bytes_for(Purpose::Kv),
            compute_bytes: loaded.ledger.bytes_for(Purpose::Compute),
        }
    }
}

/// Experts read ahead, and their fate. What is in none of `used` and `wasted` waits in memory, or came in an
/// earlier answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Predictions {
    /// Experts whose reads were started.
    pub read: u64,
    /// Those that a lookup then wanted.
    pub used: u64,
    /// Of the used, those whose read had not ended when they were wanted.
    pub late: u64,
    /// Those that lost their slot before anything wanted them.
    pub wasted: u64,
    /// Trials after which the controller switched guessing off.
    pub switched_off: u64,
}

impl Predictions {
    fn new(prefill: &StreamStats, decode: &StreamStats) -> Self {
        let (before, after) = (prefill.lookups(), decode.lookups());
        Self {
            read: prefill.prefetches + decode.prefetches,
            used: before.prefetched + after.prefetched,
            late: before.late + after.late,
            wasted: prefill.prefetches_wasted + decode.prefetches_wasted,
            switched_off: prefill.prefetch_switched_off + decode.prefetch_switched_off,
        }
    }
}

/// How many threads computed: fewer than there could be while other programs used the cores.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Threads {
    /// Those of the last step.
    pub last: u32,
    pub steps: u64,
    pub steps_with_fewer: u64,
    pub compute_ms: f64,
    pub compute_ms_with_fewer: f64,
    /// Time that threads waited for a core, added up; `None` where the number is fixed, and where the system
    /// does not count.
    pub waited_ms: Option<f64>,
}

impl Threads {
    fn new(prefill: &ThreadUse, decode: &ThreadUse) -> Self {
        Self {
            last: decode.last,
            steps: prefill.steps + decode.steps,
            steps_with_fewer: prefill.steps_with_fewer + decode.steps_with_fewer,
            compute_ms: ms(prefill.compute + decode.compute),
            compute_ms_with_fewer: ms(prefill.compute_with_fewer + decode.compute_with_fewer),
            waited_ms: prefill.waited.zip(decode.waited).map(|(one, other)| ms(one + other)),
        }
    }

    /// The part of the computing time with fewer threads than there could be, if there was any.
    pub fn share_with_fewer(&self) -> Option<f64> {
        ratio(self.compute_ms_with_fewer, self.compute_ms).filter(|share| *share > 0.0)
    }
}

/// What became of drafts. `bytes_read_per_token` is what was read for each token that was kept.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SpeculationNumbers {
    pub proposed: u64,
    pub accepted: u64,
    pub acceptance: Option<f64>,
    /// Steps that had drafts.
    pub steps: u64,
    /// Of all tokens after the first, by all steps.
    pub tokens_per_step: Option<f64>,
    /// Drafts that came true, by position.
    pub accepted_at: Vec<u64>,
    pub drafting_ms: f64,
    /// `forced 0.88`; `None` where the model decided.
    pub acceptance_from: Option<String>,
}

impl SpeculationNumbers {
    fn new(loaded: &LoadedModel, stats: &SpeculationStats, timed_tokens: usize) -> Option<Self> {
        let steps = (timed_tokens as u64).saturating_sub(stats.accepted);
        let forced = loaded.planned.settings.tuning.speculation.forced.as_ref();
        let positions = stats.accepted_at.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        (stats.proposed > 0 || !stats.drafting.is_zero()).then(|| Self {
            proposed: stats.proposed,
            accepted: stats.accepted,
            acceptance: ratio(stats.accepted as f64, stats.proposed as f64),
            steps: stats.steps,
            tokens_per_step: ratio(timed_tokens as f64, steps as f64),
            accepted_at: stats.accepted_at[..positions].to_vec(),
            drafting_ms: ms(stats.drafting),
            acceptance_from: forced.map(|curve| format!("forced {curve}")),
        })
    }
}

/// One half of a generation.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Phase {
    pub wall_ms: f64,
    pub graphs: u64,
    pub experts_hit: u64,
    pub experts_missed: u64,
    pub hit_rate: Option<f64>,
    pub dense_weights_streamed: u64,
    /// Rows of tables that stream: all that were used, those that were in memory, reads and their bytes.
    pub table_rows: u64,
    pub table_hits: u64,
    pub table_reads: u64,
    pub table_bytes_read: u64,
    pub bytes_read: u64,
    /// With a read at the disk.
    pub disk_busy_ms: f64,
    pub read_stall_ms: f64,
    /// In which pages of slots were touched for the first time, by a thread beside those that compute.
    pub touch_overlap_ms: f64,
    pub compute_ms: Option<f64>,
    pub evictions: u64,
    /// Lookups that a slot of the GPU answered, those of them that a guess had filled, bytes of experts
    /// uploaded to it and brought back from it, and waits for it.
    pub device_hits: u64,
    pub device_prefetched: u64,
    pub uploaded_bytes: u64,
    pub demoted_bytes: u64,
    pub device_waits: u64,
    /// Waiting for it, and handing uploads and nodes over to it.
    pub device_wait_ms: f64,
    pub device_upload_ms: f64,
    pub device_launch_ms: f64,
    /// Bytes over links to other machines, everything included.
    pub link_sent_bytes: u64,
    pub link_received_bytes: u64,
}

impl Phase {
    fn new(wall: Duration, lookups: Lookups, stats: &StreamStats, observed: bool) -> Self {
        Self {
            wall_ms: ms(wall),
            graphs: stats.graphs,
            experts_hit: lookups.hits,
            experts_missed: lookups.misses,
            hit_rate: ratio(lookups.hits as f64, (lookups.hits + lookups.misses) as f64),
            dense_weights_streamed: stats.dense_weights,
            table_rows: stats.table_rows,
            table_hits: stats.table_hits,
            table_reads: stats.table_reads,
            table_bytes_read: stats.table_bytes_read,
            bytes_read: stats.bytes_read,
            disk_busy_ms: ms(stats.disk_busy),
            read_stall_ms: ms(stats.read_stall),
            touch_overlap_ms: ms(stats.touch_overlap),
            compute_ms: observed.then(|| ms(stats.compute)),
            evictions: stats.evictions,
            device_hits: stats.device_hits,
            device_prefetched: stats.device_prefetched,
            uploaded_bytes: stats.uploaded_bytes,
            demoted_bytes: stats.demoted_bytes,
            device_waits: stats.device_waits,
            device_wait_ms: ms(stats.device_wait),
            device_upload_ms: ms(stats.device_upload),
            device_launch_ms: ms(stats.device_launch),
            link_sent_bytes: stats.link.sent_bytes,
            link_received_bytes: stats.link.received_bytes,
        }
    }

    /// What bound it. Where graphs are not observed, all of the time counts as computing.
    fn bound_by(&self) -> BoundBy {
        let compute_ms = self.compute_ms.unwrap_or(self.wall_ms);
        Times::measured(self.wall_ms, self.disk_busy_ms, compute_ms, self.read_stall_ms).bound_by()
    }
}

impl Stats {
    pub fn new(
        loaded: &LoadedModel,
        outcome: &Outcome,
        start: &Start,
        peak_rss_bytes: Option<u64>,
        kernel_read_bytes: Option<u64>,
    ) -> Self {
        let planned = &loaded.planned;
        let (plan, settings, shape) = (&planned.plan, &planned.settings, &planned.source.shape);
        let observed = plan.mode() != Mode::FullResident;
        let decode_time: Duration = outcome.token_times.iter().sum();
        let computed = outcome.prompt_tokens - outcome.reused_tokens;
        let (before, after) = (&outcome.prefill_stats, &outcome.decode_stats);
        let prefill = Phase::new(outcome.prefill, before.lookups(), before, observed);
        let decode = Phase::new(decode_time, after.lookups(), after, observed);
        let mut times = outcome.token_times.clone();
        times.sort_unstable();
        Self {
            model: planned.source.path.clone(),
            architecture: shape.architecture.clone(),
            mode: plan.mode().name(),
            kernels: kernels(loaded),
            reader: loaded.reader,
            policy: plan.experts.is_some().then(|| settings.tuning.policy.name()),
            threads: settings.tuning.threads,
            threads_used: Threads::new(&before.threads, &after.threads),
            was_disturbed: after.threads.since(&before.threads).was_disturbed(),
            // llama.cpp rounds what was asked for up.
            context: loaded.context.capacity(),
            ubatch: plan.context.ubatch_tokens,
            notes: loaded.notes.clone(),
            routes: forced_from(loaded),
            memory: MemoryNumbers::new(loaded, peak_rss_bytes),
            prompt_tokens: outcome.prompt_tokens,
            reused_tokens: outcome.reused_tokens,
            generated_tokens: outcome.tokens.len(),
            token_ids: outcome.tokens.clone(),
            logits_hash: outcome.logits_hash.map(|hash| hash.to_string()),
            finish: finish_name(outcome.finish),
            load_ms: ms(loaded.load_time),
            ttft_ms: (!outcome.tokens.is_empty()).then(|| ms(outcome.first_token)),
            prefill_ms: ms(outcome.prefill),
            prefill_tps: ratio(computed as f64, outcome.prefill.as_secs_f64()),
            decode_ms: ms(decode_time),
            decode_tps: ratio(times.len() as f64, decode_time.as_secs_f64()),
            token_ms_p50: percentile(&times, 50),
            token_ms_p99: percentile(&times, 99),
            experts_hit: decode.experts_hit,
            experts_missed: decode.experts_missed,
            hit_rate: decode.hit_rate,
            evictions: before.evictions + after.evictions,
            predictions: Predictions::new(before, after),
            bytes_read: start.loaded_bytes + prefill.bytes_read + decode.bytes_read,
            bytes_read_load: start.loaded_bytes,
            bytes_read_prefill: prefill.bytes_read,
            bytes_read_decode: decode.bytes_read,
            bytes_read_per_token: ratio(decode.bytes_read as f64, times.len() as f64),
            bytes_read_kernel: start
                .kernel_read_bytes
                .zip(kernel_read_bytes)
                .map(|(before, now)| now.saturating_sub(before)),
            read_stall_ms: prefill.read_stall_ms + decode.read_stall_ms,
            compute_ms: prefill.compute_ms.zip(decode.compute_ms).map(|(a, b)| a + b),
            bound_by: if times.is_empty() { prefill.bound_by() } else { decode.bound_by() },
            prefill,
            decode,
            speculation: SpeculationNumbers::new(loaded, &outcome.speculation, times.len()),
        }
    }
}

fn forced_from(loaded: &LoadedModel) -> Option<String> {
    let path = loaded.planned.settings.tuning.routes.forced_from.as_ref()?;
    Some(format!("forced from {}", path.display()))
}

pub(super) fn kernels(loaded: &LoadedModel) -> &'static str {
    loaded.planned.kernels().name()
}

const fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::End => "end",
        Finish::StopString => "stop-string",
        Finish::Length => "length",
        Finish::ContextFull => "context-full",
        Finish::Repeats => "repeats",
        Finish::Stopped => "stopped",
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// The smallest value that is not below `percent` of the sorted values (nearest rank), in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map(|time| ms(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(wall_ms: f64, disk_busy_ms: f64, read_stall_ms: f64, compute_ms: Option<f64>) -> Phase {
        Phase {
            wall_ms,
            graphs: 1,
            experts_hit: 0,
            experts_missed: 0,
            hit_rate: None,
            dense_weights_streamed: 0,
            table_rows: 0,
            table_hits: 0,
            table_reads: 0,
            table_bytes_read: 0,
            bytes_read: 0,
            disk_busy_ms,
            read_stall_ms,
            touch_overlap_ms: 0.0,
            compute_ms,
            evictions: 0,
            device_hits: 0,
            device_prefetched: 0,
            uploaded_bytes: 0,
            demoted_bytes: 0,
            device_waits: 0,
            device_wait_ms: 0.0,
            device_upload_ms: 0.0,
            device_launch_ms: 0.0,
            link_sent_bytes: 0,
            link_received_bytes: 0,
        }
    }

    #[test]
    fn what_bound_it_follows_from_where_the_time_went() {
        assert_eq!(phase(100.0, 80.0, 31.0, Some(69.0)).bound_by(), BoundBy::Disk);
        assert_eq!(phase(100.0, 60.0, 30.0, Some(65.0)).bound_by(), BoundBy::Compute);
        assert_eq!(phase(100.0, 60.0, 10.0, Some(40.0)).bound_by(), BoundBy::Sync);
        assert_eq!(phase(100.0, 0.0, 0.0, None).bound_by(), BoundBy::Compute);
        assert_eq!(phase(0.0, 0.0, 0.0, Some(0.0)).bound_by(), BoundBy::Compute);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Some(100.0));
        assert_eq!(percentile(&times, 99), Some(198.0));
        assert_eq!(percentile(&times[..1], 99), Some(1.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn nothing_divided_by_nothing_was_not_measured() {
        assert_eq!(ratio(0.0, 0.0), None);
        assert_eq!(ratio(1.0, 2.0), Some(0.5));
    }
}

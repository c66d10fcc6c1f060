//! One token at a time.

use super::compute::{Rates, TokenCompute};
use super::disk::{CHUNK_BYTES, Disk, READER_DEPTH};
use super::tables::RowReads;
use super::{CostInput, DecodeCost, Estimate};
use crate::model::{ExpertLayer, ModelShape};
use crate::plan::hits::{HitRate, Routing};
use crate::plan::{Mode, PoolId};
use crate::prefetch::{PrefetchDepth, QUEUE};
use crate::profile::Pattern;
use crate::roofline::Times;

pub(super) fn decode(input: &CostInput<'_>, rates: &Rates<'_>, disk: &Disk<'_>) -> Option<DecodeCost> {
    let workload = &input.workload;
    let past = f64::from(workload.prompt_tokens) + f64::from(workload.generated_tokens) / 2.0;
    let compute = rates.token(input.shape, past);
    let rows = RowReads::of(input, rates, disk, 1.0)?;
    let cost = match input.plan.mode() {
        Mode::FullResident | Mode::TableStreaming => Some(resident(&compute)),
        Mode::ExpertStreaming | Mode::MixedStreaming => experts(input, rates, disk, compute),
        Mode::DenseStreaming => dense(input, rates, disk, compute),
    };
    Some(rows.before(cost?))
}

fn resident(compute: &TokenCompute) -> DecodeCost {
    let compute_s = compute.dense_s + compute.experts_s;
    let times = Times { read_s: 0.0, compute_s, sync_s: compute.sync_s };
    let time = times.least_s();
    DecodeCost {
        tokens_per_s: Estimate::of_times(time, time, time),
        roofline_tokens_per_s: 1.0 / time,
        compute_s,
        sync_s: compute.sync_s,
        link_s: 0.0,
        read_s: 0.0,
        read_bytes: 0.0,
        hits: None,
        bound: times.bound_by(),
    }
}

/// What the weights that go through the ring cost a token.
#[derive(Default)]
struct Ring {
    bytes: f64,
    read_s: f64,
    sync_s: f64,
}

impl Ring {
    fn of(input: &CostInput<'_>, rates: &Rates<'_>, disk: &Disk<'_>) -> Option<Self> {
        let Some(dense) = &input.plan.dense else { return Some(Self::default()) };
        let bytes = input.plan.streamed_dense_bytes(input.shape) as f64;
        let ahead = dense.cells.saturating_sub(1).max(1) as f64;
        let in_flight = ahead * dense.cell_bytes as f64 / CHUNK_BYTES as f64;
        let depth = in_flight.clamp(1.0, READER_DEPTH);
        let read_s = disk.seconds(Pattern::Sequential, bytes, depth)?;
        // Nodes before and after each streamed one are calls of their own; on a GPU they are one.
        let calls = if rates.computes_dense_on_gpu() { 1.0 } else { 2.0 };
        Some(Self { bytes, read_s, sync_s: calls * dense.weights.len() as f64 * rates.call_s() })
    }
}

/// The ring reads ahead all the time, also into the next token, so the slower side decides.
fn dense(
    input: &CostInput<'_>,
    rates: &Rates<'_>,
    disk: &Disk<'_>,
    compute: TokenCompute,
) -> Option<DecodeCost> {
    let Ring { bytes, read_s, sync_s } = Ring::of(input, rates, disk)?;
    let sync_s = compute.sync_s + sync_s;
    // Uploads to a GPU are beside what it computes.
    let uploads_s = rates.upload_s(input.plan.uploaded_dense_bytes(input.shape) as f64)?;
    let compute_s = compute.dense_s.max(uploads_s);
    let times = Times { read_s, compute_s, sync_s };
    let time = times.least_s();
    let best = Times { read_s: disk.best_seconds(bytes)?, sync_s: compute.sync_s, ..times };
    Some(DecodeCost {
        tokens_per_s: Estimate::of_times(time, time, time),
        roofline_tokens_per_s: 1.0 / best.least_s(),
        compute_s,
        sync_s,
        link_s: 0.0,
        read_s,
        read_bytes: bytes,
        hits: None,
        bound: times.bound_by(),
    })
}

/// What one choice of hit rates costs.
#[derive(Clone, Copy, Default)]
struct Pass {
    time_s: f64,
    read_s: f64,
    read_bytes: f64,
}

/// How many layers together the disk has time for their reads: the one that computes and those that guesses
/// reach.
const WINDOW: u32 = 1 + PrefetchDepth::Likely.layers();

/// What it takes a computing thread to start a read: an order of magnitude, not measured on this machine.
const START_S: f64 = 20e-6;

/// Layer by layer; what streams of the dense weights is read whenever the disk has nothing else to do, from
/// the same disk.
fn experts(
    input: &CostInput<'_>,
    rates: &Rates<'_>,
    disk: &Disk<'_>,
    compute: TokenCompute,
) -> Option<DecodeCost> {
    let hits = layer_hits(input);
    let parts: usize = input.shape.expert_layers.iter().map(|layer| layer.parts.len()).sum();
    let ring = Ring::of(input, rates, disk)?;
    let calls_s = if rates.computes_streamed_on_gpu() {
        // A call and a wait for each layer, and uploads between the two.
        input.shape.expert_layers.len() as f64 * rates.call_s() + uploads_s(input, rates)?
    } else {
        // A streamed node is a call of its own, and so is what lies between two of them.
        2.0 * parts as f64 * rates.call_s()
    };
    let sync_s = compute.sync_s + ring.sync_s + calls_s;
    let dense_s = (compute.dense_s + sync_s) / input.shape.expert_layers.len().max(1) as f64;
    let head_s = rates.head_s(input.shape);
    let work = |layer| LayerWork {
        layer,
        dense_s,
        experts_s: compute.experts_s * ratio(layer_bytes(layer), input.shape.routed_bytes_per_token() as f64),
        wake_s: rates.wake_s,
        ask_s: f64::from(PrefetchDepth::Likely.layers()) * rates.router_s(input.shape, layer.layer),
    };
    let works: Vec<LayerWork<'_>> = input.shape.expert_layers.iter().map(work).collect();
    let pass = |pick: fn(&HitRate) -> f64| {
        // What the controller chooses: guessing, or not.
        let (mut ahead, mut alone) = (Pass::default(), Pass::default());
        for (work, hits) in works.iter().zip(&hits) {
            ahead.add(work.ahead(pick(hits), input.workload.lookahead, disk)?);
            alone.add(work.alone(pick(hits), disk)?);
        }
        for way in [&mut ahead, &mut alone] {
            way.read_s += ring.read_s;
            way.read_bytes += ring.bytes;
            // While the next token is unknown, nobody knows what it will need.
            way.time_s = way.time_s.max(way.read_s + head_s);
        }
        Some(if ahead.time_s < alone.time_s { ahead } else { alone })
    };
    let (slow, mid, fast) = (pass(|hits| hits.low)?, pass(|hits| hits.mid)?, pass(|hits| hits.high)?);
    let compute_s = compute.dense_s + compute.experts_s;
    let times = Times { read_s: mid.read_s, compute_s, sync_s };
    let best = Times { read_s: disk.best_seconds(mid.read_bytes)?, sync_s: compute.sync_s, ..times };
    Some(DecodeCost {
        tokens_per_s: Estimate::of_times(slow.time_s, mid.time_s, fast.time_s),
        roofline_tokens_per_s: 1.0 / best.least_s(),
        compute_s,
        sync_s,
        link_s: 0.0,
        read_s: mid.read_s,
        read_bytes: mid.read_bytes,
        hits: Some(mean_hits(input.shape, &hits)),
        bound: times.bound_by(),
    })
}

/// Uploading what a GPU's slots lack of a token's experts; `None` where that speed was not measured.
fn uploads_s(input: &CostInput<'_>, rates: &Rates<'_>) -> Option<f64> {
    // A hit rate that somebody knows is that of all memory together.
    let routing = match input.workload.routing {
        Routing::Known(_) => Routing::of(input.shape),
        routing => routing,
    };
    let hits = hits_in(input, routing, &|class| {
        let experts = input.plan.experts.as_ref();
        experts.map_or(0, |experts| experts.class_slots_in(input.plan.homes.streamed_experts, class))
    });
    let missing = |(layer, hits): (&ExpertLayer, &HitRate)| (1.0 - hits.mid) * layer_bytes(layer);
    rates.upload_s(input.shape.expert_layers.iter().zip(&hits).map(missing).sum())
}

/// The hit rate of each expert layer in all memory: what a GPU's slots have need not be in the host's. A size
/// class has slots of its own, for all its layers together.
pub(super) fn layer_hits(input: &CostInput<'_>) -> Vec<HitRate> {
    let there = input.plan.homes.streamed_experts;
    hits_in(input, input.workload.routing, &|class| {
        let Some(experts) = input.plan.experts.as_ref() else { return 0 };
        let beyond = if there == PoolId::HOST { 0 } else { experts.class_slots_in(there, class) };
        experts.class_slots(class).saturating_add(beyond)
    })
}

/// The hit rate of each expert layer with so many slots for its class.
fn hits_in(input: &CostInput<'_>, routing: Routing, slots_of: &dyn Fn(usize) -> u32) -> Vec<HitRate> {
    let class_of = |layer: u32| {
        input.layout.layers.iter().find(|candidate| candidate.layer == layer).map(|found| found.class)
    };
    let of_layer = |layer: &ExpertLayer| {
        let class = class_of(layer.layer);
        let slots = class.map_or(0, slots_of);
        let experts =
            class.and_then(|class| input.layout.classes.get(class)).map_or(0, |class| class.experts);
        let fraction = ratio(f64::from(slots), experts as f64);
        let used = ratio(f64::from(layer.used), f64::from(layer.experts));
        let HitRate { low, mid, high } = routing.hit_rate(fraction, used);
        let corrected = |rate: f64| (1.0 - (1.0 - rate) * input.workload.miss_factor).clamp(0.0, 1.0);
        HitRate { low: corrected(low), mid: corrected(mid), high: corrected(high) }
    };
    input.shape.expert_layers.iter().map(of_layer).collect()
}

/// Weighted by the bytes that layers route to.
fn mean_hits(shape: &ModelShape, hits: &[HitRate]) -> HitRate {
    let total = shape.routed_bytes_per_token() as f64;
    let mean = |pick: fn(&HitRate) -> f64| {
        let weigh = |(layer, hits): (&ExpertLayer, &HitRate)| layer_bytes(layer) * pick(hits);
        ratio(shape.expert_layers.iter().zip(hits).map(weigh).sum(), total)
    };
    HitRate { low: mean(|hits| hits.low), mid: mean(|hits| hits.mid), high: mean(|hits| hits.high) }
}

fn layer_bytes(layer: &ExpertLayer) -> f64 {
    f64::from(layer.used) * layer.expert_bytes() as f64
}

impl Pass {
    fn add(&mut self, other: Self) {
        self.time_s += other.time_s;
        self.read_s += other.read_s;
        self.read_bytes += other.read_bytes;
    }
}

/// One layer of a token.
struct LayerWork<'a> {
    layer: &'a ExpertLayer,
    /// Computing everything but experts, and dispatch.
    dense_s: f64,
    /// Computing the experts.
    experts_s: f64,
    /// Waking threads after a wait.
    wake_s: f64,
    /// Asking the routers of later layers.
    ask_s: f64,
}

impl LayerWork<'_> {
    /// Without guesses, on average over how many experts are missing: their reads go out together, the hits
    /// are computed meanwhile, and the last part of the missing ones after they landed.
    fn alone(&self, hit: f64, disk: &Disk<'_>) -> Option<Pass> {
        self.waiting(hit, 0.0, disk)
    }

    /// The same when reads wait `queue_s` for others before them.
    fn waiting(&self, hit: f64, queue_s: f64, disk: &Disk<'_>) -> Option<Pass> {
        let layer = self.layer;
        let used = layer.used;
        let last_part_s = self.experts_s / (f64::from(used) * layer.parts.len().max(1) as f64);
        let mut pass = Pass::default();
        let (mut slowest_read, mut slowest) = (0.0_f64, self.experts_s);
        for (missing, probability) in binomial(used, 1.0 - hit).into_iter().enumerate() {
            let missing = missing as f64;
            if missing > 0.0 {
                // More requests never take less time, whatever the noise of two measurements says.
                slowest_read = slowest_read.max(self.read_s(missing, disk)?);
                let waited_s = queue_s + slowest_read + missing * last_part_s + self.wake_s;
                slowest = slowest.max(waited_s);
            }
            pass.time_s += probability * (self.dense_s + slowest) + probability * missing * self.start_s();
            pass.read_s += probability * slowest_read;
            pass.read_bytes += probability * missing * layer.expert_bytes() as f64;
        }
        Some(pass)
    }

    /// Seconds to read that many experts or fewer: more requests never take less time, whatever the noise of
    /// two measurements.
    fn most_read_s(&self, missing: f64, disk: &Disk<'_>) -> Option<f64> {
        let most = missing.ceil().max(1.0) as u32;
        (1..=most).try_fold(0.0_f64, |most, count| Some(most.max(self.read_s(f64::from(count), disk)?)))
    }

    /// With guesses: only the share of the missing experts that was not guessed is waited for, and the disk
    /// has the time of several layers for the reads of as many. Whichever of both takes longer decides, on
    /// average over how many are missing in those layers together, which is how far one layer's idle disk can
    /// make up for another's misses.
    fn ahead(&self, hit: f64, lookahead: f64, disk: &Disk<'_>) -> Option<Pass> {
        let layer = self.layer;
        let missing = f64::from(layer.used) * (1.0 - hit);
        // A read that nobody guessed waits for guesses before it: the busier the disk, the more of them.
        let busy_s = self.most_read_s(missing, disk)? * missing.min(1.0);
        let busy = (busy_s / (self.dense_s + self.experts_s)).min(1.0);
        let mut waiting =
            self.waiting(1.0 - (1.0 - hit) * (1.0 - lookahead), busy * QUEUE.as_secs_f64() / 2.0, disk)?;
        waiting.time_s += self.ask_s + missing * lookahead * self.start_s();
        let (mut slowest_read, mut pass) = (0.0_f64, Pass::default());
        for (missing, probability) in
            binomial(layer.used.saturating_mul(WINDOW), 1.0 - hit).into_iter().enumerate()
        {
            let missing = missing as f64;
            if missing > 0.0 {
                slowest_read = slowest_read.max(self.read_s(missing, disk)? / f64::from(WINDOW));
            }
            pass.time_s += probability * waiting.time_s.max(slowest_read);
            pass.read_s += probability * slowest_read;
            pass.read_bytes += probability * missing * layer.expert_bytes() as f64 / f64::from(WINDOW);
        }
        Some(pass)
    }

    /// Starting the reads of an expert.
    fn start_s(&self) -> f64 {
        self.layer.parts.len() as f64 * START_S
    }

    /// Reading so many experts at once.
    fn read_s(&self, experts: f64, disk: &Disk<'_>) -> Option<f64> {
        let parts = self.layer.parts.len().max(1);
        disk.burst_seconds(experts * parts as f64, self.layer.expert_bytes() / parts as u64)
    }
}

/// Probabilities of 0 to `n` successes. Empty tails are dropped, so that a disk that was not measured is not
/// asked for reads that never happen.
fn binomial(n: u32, p: f64) -> Vec<f64> {
    if p <= 0.0 {
        return vec![1.0];
    }
    let mut row = vec![1.0];
    for _ in 0..n {
        let mut next = vec![0.0; row.len() + 1];
        for (k, probability) in row.iter().enumerate() {
            next[k] += probability * (1.0 - p);
            next[k + 1] += probability * p;
        }
        row = next;
    }
    row
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binomials_are_distributions() {
        for (n, p) in [(0, 0.5), (2, 0.25), (8, 0.9), (8, 1.0)] {
            let row = binomial(n, p);
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let mean: f64 = row.iter().enumerate().map(|(k, probability)| k as f64 * probability).sum();
            assert!((mean - f64::from(n) * p).abs() < 1e-12);
        }
        assert_eq!(binomial(8, 0.0), [1.0]);
    }
}

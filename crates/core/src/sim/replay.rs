//! Replays a trace against a cache.
//!
//! What a lookup is: one expert, once a token (or once a ubatch, when prefill is batched). A token visits its
//! layers in order; all experts of a layer are acquired at once, in ascending order (that of the file), their
//! reads complete, and they are unpinned before the next layer. A layer counts the tokens that have routes in
//! it: the last one usually computes only the token whose logits are wanted. One cache serves all layers; for
//! a model of several size classes replay [`Trace::of_layers`] of each class on a cache of its own.
//!
//! Invariant: the engine, given the same trace, slots and policy, and without prefetching, makes the same
//! calls of [`ExpertCache`] in the same order (the engine's `tests/simulator.rs`).

use std::collections::BTreeMap;

use super::{Machine, Prediction};
use crate::cache::policy::Belady;
use crate::cache::{Counters, Demand, ExpertCache, ExpertKey, Grant, TokenClock};
use crate::trace::{Phase, Trace, TraceToken};

/// How to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayOptions {
    /// Tokens of a prefill ubatch; 1 replays the prompt token by token, like decoding.
    pub ubatch_tokens: u32,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { ubatch_tokens: 1 }
    }
}

/// What a replay counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Counts of the prompt.
    pub prefill: Counters,
    /// Counts of the generated tokens.
    pub decode: Counters,
    /// Generated tokens.
    pub decode_tokens: u64,
    /// Layers of generated tokens in which at least one expert was read.
    pub decode_reading_layers: u64,
    /// Bytes of one expert.
    pub expert_bytes: u64,
}

impl Replay {
    /// Bytes read for the whole trace.
    pub const fn bytes(&self) -> u64 {
        (self.prefill.reads() + self.decode.reads()).saturating_mul(self.expert_bytes)
    }

    /// Share of all lookups, prompt included, that needed no read.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn hit_rate(&self) -> Option<f64> {
        let lookups = self.prefill.lookups() + self.decode.lookups();
        let misses = self.prefill.misses() + self.decode.misses();
        (lookups > 0).then(|| 1.0 - misses as f64 / lookups as f64)
    }

    /// Predicted speed of generation; `None` for a trace without generated tokens.
    #[expect(clippy::cast_precision_loss, reason = "averages for people")]
    pub fn predict(&self, machine: &Machine) -> Option<Prediction> {
        let tokens = self.decode_tokens as f64;
        let bytes = self.decode.reads() as f64 * self.expert_bytes as f64;
        (self.decode_tokens > 0)
            .then(|| machine.predict(bytes / tokens, self.decode_reading_layers as f64 / tokens))
    }
}

/// Tokens that are computed together.
struct Step {
    phase: Phase,
    tokens: u32,
    /// What each layer needs, in the order of the forward pass.
    layers: Vec<LayerStep>,
}

/// One layer of a step.
struct LayerStep {
    /// Tokens with routes in this layer.
    tokens: u32,
    /// Ascending by expert.
    demands: Vec<Demand>,
}

/// Replays `trace` on an empty or a warm `cache`. Its clock starts at 0, so a cache is replayed once.
pub fn replay(trace: &Trace, cache: &mut ExpertCache, options: ReplayOptions) -> Replay {
    let mut result = Replay { expert_bytes: trace.header.expert_bytes, ..Replay::default() };
    let mut now = TokenClock(0);
    for step in steps(trace, options) {
        let before = cache.counters();
        now = now.after_step(step.tokens);
        let reading_layers = run_step(&step, cache, now);
        let counted = cache.counters().since(&before);
        match step.phase {
            Phase::Prefill => result.prefill = result.prefill.plus(&counted),
            Phase::Decode => {
                result.decode = result.decode.plus(&counted);
                result.decode_tokens += 1;
                result.decode_reading_layers += reading_layers;
            }
        }
    }
    result
}

/// Returns the number of layers that read.
fn run_step(step: &Step, cache: &mut ExpertCache, now: TokenClock) -> u64 {
    let mut reading_layers = 0;
    for layer in &step.layers {
        let grants = cache.acquire_step(&layer.demands, now, layer.tokens);
        for grant in &grants {
            if let Grant::Load(slot) = grant {
                cache.complete(*slot, true);
            }
        }
        for slot in grants.iter().filter_map(|grant| grant.slot()) {
            cache.unpin(slot);
        }
        let read = grants.iter().any(|grant| matches!(grant, Grant::Load(_) | Grant::NoRoom));
        reading_layers += u64::from(read);
    }
    reading_layers
}

/// Belady's policy for exactly the lookups that [`replay`] will make of `trace` with the same `options`.
pub fn belady_for(trace: &Trace, slots: u32, options: ReplayOptions) -> Belady {
    let layers: Vec<Vec<ExpertKey>> = steps(trace, options)
        .flat_map(|step| step.layers)
        .map(|layer| layer.demands.iter().map(|demand| demand.key).collect())
        .collect();
    Belady::new(slots, layers.iter().map(Vec::as_slice))
}

fn steps(trace: &Trace, options: ReplayOptions) -> impl Iterator<Item = Step> + '_ {
    let ubatch = options.ubatch_tokens.max(1) as usize;
    trace
        .tokens
        .chunk_by(|a, b| a.phase == Phase::Prefill && b.phase == Phase::Prefill)
        .flat_map(move |run| run.chunks(ubatch))
        .filter_map(step_of)
}

/// One step for `tokens`, which are all of one phase: their layers in order, each expert once with its token
/// count.
fn step_of(tokens: &[TraceToken]) -> Option<Step> {
    let phase = tokens.first()?.phase;
    let mut layers: BTreeMap<u32, (u32, BTreeMap<u32, u32>)> = BTreeMap::new();
    for routes in tokens.iter().flat_map(|token| &token.layers) {
        let (tokens, uses) = layers.entry(routes.layer).or_default();
        *tokens += 1;
        for expert in &routes.experts {
            *uses.entry(*expert).or_default() += 1;
        }
    }
    let layers = layers.into_iter().map(|(layer, (tokens, uses))| {
        let demand = |(expert, tokens)| Demand { key: ExpertKey::new(layer, expert), tokens };
        LayerStep { tokens, demands: uses.into_iter().map(demand).collect() }
    });
    Some(Step { phase, tokens: u32::try_from(tokens.len()).ok()?, layers: layers.collect() })
}

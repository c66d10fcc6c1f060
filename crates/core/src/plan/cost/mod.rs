//! From a plan and a measured machine to seconds: the pipeline model.
//!
//! What is modelled is what the engine does. Decoding with experts: layer by layer, reads of a layer start
//! when its router has answered and overlap with computing its hits (`decode`). Dense streaming: one ring,
//! the slower of disk and processor decides. Prefill: each ubatch touches nearly every weight once
//! (`prefill`). Arithmetic at rates that were measured for the types of the weights (`compute`).
//!
//! Invariants: pure; a prediction that would need a number that nobody measured is absent, and
//! [`Prediction::missing`] names the number; more memory never predicts slower.

mod compute;
mod decode;
mod prefill;

use super::hits::{HitRate, Routing};
use super::{ExpertLayout, Plan};
use crate::model::ModelShape;
use crate::profile::{Pattern, Profile, Storage};
use crate::roofline::BoundBy;

/// Requests larger than this go to the device in pieces of it (the readers' default chunk, which the engine
/// checks).
pub const CHUNK_BYTES: u64 = 1 << 20;
/// Most pieces at the device at the same time (the readers' default depth, which the engine checks).
pub const READER_DEPTH: f64 = 64.0;
/// Share by which a prediction is taken to be off on a machine that does nothing else: an assumption about
/// how much disk and processor differ from minute to minute, not a measurement of predictions.
const NOISE: f64 = 0.15;

/// Share of missing experts that the next layers' routers name in time. Routers applied to an earlier hidden
/// state name 70 to 89% of the experts in the reports of others; some of them come too late.
const LOOKAHEAD: f64 = 0.7;

/// What is asked of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens that are generated; the predicted speed is that in the middle of them.
    pub generated_tokens: u32,
    /// Most tokens in one graph.
    pub ubatch_tokens: u32,
    /// What is assumed of the router.
    pub routing: Routing,
    /// Share of the missing experts that the engine guesses and reads before they are asked for, 0 to 1.
    pub lookahead: f64,
}

impl Default for Workload {
    /// A prompt of 512 tokens, an answer of 256, ubatches of 512.
    fn default() -> Self {
        Self {
            prompt_tokens: 512,
            generated_tokens: 256,
            ubatch_tokens: 512,
            routing: Routing::default(),
            lookahead: LOOKAHEAD,
        }
    }
}

/// Everything that a prediction follows from.
#[derive(Clone, Copy, Debug)]
pub struct CostInput<'a> {
    /// The model.
    pub shape: &'a ModelShape,
    /// Its experts' layout.
    pub layout: &'a ExpertLayout,
    /// Where everything goes.
    pub plan: &'a Plan,
    /// The machine.
    pub profile: &'a Profile,
    /// What is asked of it.
    pub workload: Workload,
}

/// A number with its error band.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The least that is likely.
    pub low: f64,
    /// Expected.
    pub mid: f64,
    /// The most that is likely.
    pub high: f64,
}

/// Predicted decoding, for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeCost {
    /// Tokens per second.
    pub tokens_per_s: Estimate,
    /// The most that any schedule could reach with the same hits: perfect overlap at the disk's best rate.
    pub roofline_tokens_per_s: f64,
    /// Seconds of multiplying, without what binds otherwise.
    pub compute_s: f64,
    /// Seconds of dispatching nodes and calls.
    pub sync_s: f64,
    /// Seconds of reading.
    pub read_s: f64,
    /// Bytes read.
    pub read_bytes: f64,
    /// Share of expert lookups found in memory; `None` where no experts stream.
    pub hits: Option<HitRate>,
    /// What takes the time.
    pub bound: BoundBy,
}

/// Predicted prefill, of the whole prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefillCost {
    /// Tokens per second.
    pub tokens_per_s: Estimate,
    /// Seconds to the first token, the model being loaded.
    pub first_token_s: Estimate,
    /// Seconds of computing.
    pub compute_s: f64,
    /// Seconds of reading.
    pub read_s: f64,
    /// Bytes read.
    pub read_bytes: f64,
    /// What takes the time.
    pub bound: BoundBy,
}

/// What a plan will do on a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Seconds from start to ready.
    pub load_s: Option<Estimate>,
    /// The prompt.
    pub prefill: Option<PrefillCost>,
    /// The answer.
    pub decode: Option<DecodeCost>,
    /// What was not measured, so that something above is absent.
    pub missing: Vec<String>,
    /// What was assumed in place of a measurement.
    pub assumptions: Vec<String>,
}

impl Estimate {
    /// `mid` give or take a share of it.
    fn around(mid: f64, share: f64) -> Self {
        Self { low: mid * (1.0 - share), mid, high: mid * (1.0 + share) }
    }

    /// The estimate of a speed from times of the worst, expected and best case, noise added.
    fn of_times(slow_s: f64, mid_s: f64, fast_s: f64) -> Self {
        let low = (1.0 - NOISE) / slow_s.max(mid_s);
        Self { low, mid: 1.0 / mid_s, high: (1.0 + NOISE) / fast_s.min(mid_s) }
    }

    /// The same of `amount / value`, with low and high in their places.
    fn inverse(self, amount: f64) -> Self {
        Self { low: amount / self.high, mid: amount / self.mid, high: amount / self.low }
    }
}

/// Predicts. What cannot be predicted is absent from the result and named in it.
#[must_use]
pub fn predict(input: &CostInput<'_>) -> Prediction {
    let mut prediction = Prediction::default();
    let storage = input.profile.storage.as_ref().filter(|storage| storage.is_measured());
    if storage.is_none() {
        prediction.missing.push("the speed of the disk".to_owned());
    }
    prediction.load_s = storage.and_then(|storage| load(input, storage));
    let Some(rates) = compute::Rates::of(input.shape, input.profile) else {
        prediction.missing.push("the speed of the processor".to_owned());
        return prediction;
    };
    prediction.assumptions.extend(rates.assumptions.iter().cloned());
    let disk = Disk { storage };
    prediction.decode = decode::decode(input, &rates, &disk);
    prediction.prefill = prefill::prefill(input, &rates, &disk);
    prediction
}

/// Loading reads the resident weights in file order, and builds the vocabulary.
fn load(input: &CostInput<'_>, storage: &Storage) -> Option<Estimate> {
    /// Starting, reading headers and building the graph's buffers; and per token of vocabulary: its tables in
    /// llama.cpp. Orders of magnitude, not calibrated: they matter for models that load in a fraction of a
    /// second.
    const BASE_S: f64 = 0.1;
    const PER_TOKEN_S: f64 = 2e-6;
    let fixed_s = BASE_S + input.shape.vocab as f64 * PER_TOKEN_S;
    let disk = Disk { storage: Some(storage) };
    let bytes = input.plan.resident_bytes() as f64;
    let read_s = disk.seconds(Pattern::Sequential, bytes, READER_DEPTH)?;
    // Reads go to memory that nobody has touched; the system gives it while the disk works on other reads.
    let read_s = read_s.max(input.profile.memory.touch_s(0.0, bytes));
    Some(Estimate::around(fixed_s + read_s, NOISE))
}

/// The disk as the readers use it.
struct Disk<'a> {
    storage: Option<&'a Storage>,
}

impl Disk<'_> {
    /// Seconds to read `bytes` with up to `depth` chunks at the device; 0 for 0 bytes, whatever the disk.
    fn seconds(&self, pattern: Pattern, bytes: f64, depth: f64) -> Option<f64> {
        if bytes <= 0.0 {
            return Some(0.0);
        }
        self.rate(pattern, CHUNK_BYTES, depth).map(|rate| bytes / rate)
    }

    /// Seconds of a burst of `count` requests of `bytes` each that are submitted together.
    fn burst_seconds(&self, count: f64, bytes: u64) -> Option<f64> {
        if count <= 0.0 || bytes == 0 {
            return Some(0.0);
        }
        let pieces = count * bytes.div_ceil(CHUNK_BYTES) as f64;
        let depth = pieces.clamp(1.0, READER_DEPTH);
        let rate = self.rate(Pattern::Random, bytes.min(CHUNK_BYTES), depth)?;
        Some(count * bytes as f64 / rate)
    }

    /// The pattern's rate; the other pattern's where only that was measured.
    fn rate(&self, pattern: Pattern, request_bytes: u64, depth: f64) -> Option<f64> {
        let storage = self.storage?;
        let other = match pattern {
            Pattern::Sequential => Pattern::Random,
            Pattern::Random => Pattern::Sequential,
        };
        let rate = |pattern| storage.rate(pattern, request_bytes, depth);
        rate(pattern).or_else(|| rate(other)).filter(|rate| *rate > 0.0)
    }

    /// Seconds to read `bytes` at the best rate that was measured, whatever the pattern, size and depth.
    fn best_seconds(&self, bytes: f64) -> Option<f64> {
        if bytes <= 0.0 {
            return Some(0.0);
        }
        let rates = self.storage?.reads.iter().filter_map(|read| read.bytes_per_s);
        rates.filter(|rate| *rate > 0.0).max_by(f64::total_cmp).map(|rate| bytes / rate)
    }
}

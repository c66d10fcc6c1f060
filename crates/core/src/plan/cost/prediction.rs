//! Seconds and speeds, with their error bands.

use super::super::hits::HitRate;
use crate::roofline::BoundBy;

/// Share by which a prediction is taken to be off on a machine that does nothing else: an assumption about
/// how much disk and processor differ from minute to minute, not a measurement of predictions.
pub(super) const NOISE: f64 = 0.15;

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

impl Estimate {
    /// `mid` give or take a share of it.
    pub(super) fn around(mid: f64, share: f64) -> Self {
        Self { low: mid * (1.0 - share), mid, high: mid * (1.0 + share) }
    }

    /// The estimate of a speed from times of the worst, expected and best case, noise added.
    pub(super) fn of_times(slow_s: f64, mid_s: f64, fast_s: f64) -> Self {
        let low = (1.0 - NOISE) / slow_s.max(mid_s);
        Self { low, mid: 1.0 / mid_s, high: (1.0 + NOISE) / fast_s.min(mid_s) }
    }

    /// So many times as much.
    pub(super) fn times(self, factor: f64) -> Self {
        Self { low: self.low * factor, mid: self.mid * factor, high: self.high * factor }
    }

    /// The same of `amount / value`, with low and high in their places.
    pub(super) fn inverse(self, amount: f64) -> Self {
        Self { low: amount / self.high, mid: amount / self.mid, high: amount / self.low }
    }
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
    /// Seconds on links to other machines.
    pub link_s: f64,
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
    /// Seconds on links to other machines.
    pub link_s: f64,
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

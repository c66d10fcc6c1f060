//! From counted reads to tokens per second, by [`crate::roofline`].
//!
//! To the reading time is added one latency for each layer that reads anything: its reads go out together,
//! and the next layer's cannot be known before.

use crate::roofline::{BoundBy, Times};

/// The measured machine. All numbers come from a profile; none is a default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Seconds of computing for one token with everything resident.
    pub compute_s: f64,
    /// Sequential-enough read rate of the disk at the reader's queue depth.
    pub disk_bytes_per_s: f64,
    /// Time from asking to the first byte.
    pub disk_latency_s: f64,
}

/// Predicted speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Seconds of reading a token.
    pub disk_s: f64,
    /// Tokens per second with perfect overlap.
    pub tokens_per_s: f64,
    /// Which side is slower.
    pub bound: BoundBy,
}

impl Machine {
    /// The speed at which tokens come that read `bytes_per_token` in `reading_layers_per_token` layers, on
    /// average.
    pub fn predict(&self, bytes_per_token: f64, reading_layers_per_token: f64) -> Prediction {
        let disk_s = bytes_per_token / self.disk_bytes_per_s + reading_layers_per_token * self.disk_latency_s;
        let times = Times { read_s: disk_s, compute_s: self.compute_s, sync_s: 0.0 };
        Prediction { disk_s, tokens_per_s: 1.0 / times.least_s(), bound: times.bound_by() }
    }
}

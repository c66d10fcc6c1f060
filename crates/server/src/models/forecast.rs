//! What was predicted of a model when it was loaded, as plain data: it comes from the process that loads it.

use hypura_core::model::ModelShape;
use hypura_core::plan::{CostInput, Estimate, ExpertLayout, Plan, Routing, Workload, predict};
use hypura_core::profile::Profile;
use hypura_core::roofline::BoundBy;
use serde::{Deserialize, Serialize};

/// A speed with its error band.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// The least that is likely.
    pub low: f64,
    /// Expected.
    pub mid: f64,
    /// The most that is likely.
    pub high: f64,
}

impl From<Estimate> for Band {
    fn from(Estimate { low, mid, high }: Estimate) -> Self {
        Self { low, mid, high }
    }
}

/// Predicted decoding, or a predicted prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens per second.
    pub tokens_per_s: Band,
    /// Bytes read for each token.
    pub bytes_per_token: f64,
    /// Share of lookups that find their expert in memory.
    pub hit_rate: Option<f64>,
    /// What takes the time.
    pub bound: BoundBy,
}

/// What was predicted; `None` where something that it needs was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// A prompt of 512 tokens.
    pub prefill: Option<Speed>,
    /// The middle of an answer of 256.
    pub decode: Option<Speed>,
}

impl Forecast {
    /// What it is a forecast of.
    #[must_use]
    pub fn workload(shape: &ModelShape, plan: &Plan) -> Workload {
        let ubatch_tokens = plan.context.ubatch_tokens;
        Workload { ubatch_tokens, routing: Routing::of(shape), ..Workload::default() }
    }

    /// The forecast of a plan on a machine.
    #[must_use]
    pub fn of(shape: &ModelShape, layout: &ExpertLayout, plan: &Plan, profile: &Profile) -> Self {
        let workload = Self::workload(shape, plan);
        let prediction = predict(&CostInput { shape, layout, plan, profile, workload });
        let prompt_tokens = f64::from(workload.prompt_tokens.max(1));
        Self {
            prefill: prediction.prefill.map(|prefill| Speed {
                tokens_per_s: prefill.tokens_per_s.into(),
                bytes_per_token: prefill.read_bytes / prompt_tokens,
                hit_rate: None,
                bound: prefill.bound,
            }),
            decode: prediction.decode.map(|decode| Speed {
                tokens_per_s: decode.tokens_per_s.into(),
                bytes_per_token: decode.read_bytes,
                hit_rate: decode.hits.map(|hits| hits.mid),
                bound: decode.bound,
            }),
        }
    }
}

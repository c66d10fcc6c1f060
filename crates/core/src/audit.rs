//! Records of what runs came to beside what was predicted of them.
//!
//! A record keeps the prediction as it would have been without any correction, so that corrections do not
//! pile up. `plan::cost::correction` uses them.

use crate::plan::{CostInput, DecodeCost, model_key, predict};
use crate::profile::{Profile, ProfileKey};
use serde::{Deserialize, Serialize};

pub use crate::profile::{Record, Tiers};

/// Records that are kept: the latest ones.
pub const MOST_RECORDS: usize = 64;
/// Least tokens of an answer that says something.
pub const LEAST_TOKENS: u64 = 16;

impl Tiers {
    /// As predicted.
    #[must_use]
    pub fn of(cost: &DecodeCost) -> Self {
        Self {
            tokens_per_s: cost.tokens_per_s.mid,
            compute_s: Some(cost.compute_s + cost.sync_s),
            read_bytes: Some(cost.read_bytes),
            disk_bytes_per_s: (cost.read_s > 0.0).then(|| cost.read_bytes / cost.read_s),
            hit_rate: cost.hits.map(|hits| hits.mid),
        }
    }
}

/// What is predicted of a run before it begins, by the profile alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    key: ProfileKey,
    model: String,
    predicted: Tiers,
}

impl Expected {
    /// `None` where nothing can be predicted.
    #[must_use]
    pub fn of(input: &CostInput<'_>) -> Option<Self> {
        let profile = Profile { audit: Vec::new(), ..input.profile.clone() };
        let decode = predict(&CostInput { profile: &profile, ..*input }).decode?;
        let (key, model) = (profile.key, model_key(input.shape));
        Some(Self { key, model, predicted: Tiers::of(&decode) })
    }

    /// What it came to; `None` of too few tokens.
    #[must_use]
    pub fn record(self, measured: Tiers, tokens: u64, disturbed: bool, at_s: u64) -> Option<Record> {
        let Self { key, model, predicted } = self;
        let record = Record { at_s, key, model, tokens, predicted, measured, pace: None, disturbed };
        Some(record).filter(|_| tokens >= LEAST_TOKENS)
    }
}

impl Record {
    /// Of a run as it was planned; `None` where nothing can be predicted or too little was generated.
    #[must_use]
    pub fn of(
        input: &CostInput<'_>,
        measured: Tiers,
        tokens: u64,
        disturbed: bool,
        at_s: u64,
    ) -> Option<Self> {
        let record = Expected::of(input)?.record(measured, tokens, false, at_s)?;
        let profile = Profile { audit: vec![record.clone()], ..input.profile.clone() };
        let corrected = predict(&CostInput { profile: &profile, ..*input }).decode?.tokens_per_s.mid;
        let pace = Some(measured.tokens_per_s / corrected).filter(|pace| pace.is_finite());
        Some(Self { pace, disturbed, ..record })
    }
}

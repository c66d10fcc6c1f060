//! From a plan and a measured machine to seconds: the pipeline model.
//!
//! What is modelled is what the engine does. Decoding with experts: layer by layer, reads of a layer start
//! when its router has answered and overlap with computing its hits (`decode`). Dense streaming: one ring,
//! the slower of disk and processor decides. Prefill: each ubatch touches nearly every weight once
//! (`prefill`). A GPU computes what is at home there at rates of its own; experts that its slots lack are
//! uploaded first. Arithmetic at rates that were measured for the types of the weights (`compute`), reads at
//! those of the disk (`disk`). Rows of tables are waited for before anything else (`tables`). Machines
//! compute in turns, so their times and those of the links between them add up (`machines`).
//!
//! Invariants: pure; a prediction that would need a number that nobody measured is absent, and
//! [`Prediction::missing`] names the number; more memory never predicts slower.
//! What former runs came to corrects the rates, and is named among the assumptions (`correction`).

mod compute;
mod correction;
mod decode;
mod disk;
mod here;
mod input;
mod load;
mod machines;
mod prediction;
mod prefill;
mod tables;

pub use correction::model_key;
pub use disk::{CHUNK_BYTES, READER_DEPTH};
pub use input::{CostInput, Workload};
pub use prediction::{DecodeCost, Estimate, Prediction, PrefillCost};

use super::Routing;
use correction::Correction;

/// Predicts. What cannot be predicted is absent from the result and named in it. Runs with workers correct
/// nothing, and are not corrected: their speed says little about this machine.
#[must_use]
pub fn predict(input: &CostInput<'_>) -> Prediction {
    if input.plan.pools.has_workers() {
        return machines::predict(input);
    }
    let profile = input.profile;
    let Some(mut correction) = Correction::of(&profile.audit, &profile.key, &model_key(input.shape)) else {
        return here::predict(input);
    };
    if input.workload.routing != Routing::of(input.shape) {
        // What is stated or measured of hits is not corrected.
        correction.misses = 1.0;
    }
    if !input.plan.homes.are_on_host() {
        // Runs of the CPU alone are what paces are known of.
        correction.pace = 1.0;
    }
    let corrected = correction.apply(profile);
    let miss_factor = input.workload.miss_factor * correction.misses;
    let workload = Workload { miss_factor, ..input.workload };
    let mut prediction = here::predict(&CostInput { profile: &corrected, workload, ..*input });
    if let Some(decode) = &mut prediction.decode {
        decode.tokens_per_s = decode.tokens_per_s.times(correction.pace);
    }
    prediction.assumptions.push(correction.note());
    prediction
}

//! From a plan and a measured machine to seconds: the pipeline model.
//!
//! What is modelled is what the engine does. Decoding with experts: layer by layer, reads of a layer start
//! when its router has answered and overlap with computing its hits (`decode`). Dense streaming: one ring,
//! the slower of disk and processor decides. Prefill: each ubatch touches nearly every weight once
//! (`prefill`). A GPU computes what is at home there at rates of its own; experts that its slots lack are
//! uploaded first. Arithmetic at rates that were measured for the types of the weights (`compute`), reads at
//! those of the disk (`disk`). Rows of tables are waited for before anything else (`tables`).
//!
//! Invariants: pure; a prediction that would need a number that nobody measured is absent, and
//! [`Prediction::missing`] names the number; more memory never predicts slower.

mod compute;
mod decode;
mod disk;
mod input;
mod prediction;
mod prefill;
mod tables;

pub use disk::{CHUNK_BYTES, READER_DEPTH};
pub use input::{CostInput, Workload};
pub use prediction::{DecodeCost, Estimate, Prediction, PrefillCost};

use crate::profile::{Pattern, Storage};
use disk::Disk;
use prediction::NOISE;

/// Predicts. What cannot be predicted is absent from the result and named in it.
#[must_use]
pub fn predict(input: &CostInput<'_>) -> Prediction {
    let mut prediction = Prediction::default();
    let storage = input.profile.storage.as_ref().filter(|storage| storage.is_measured());
    if storage.is_none() {
        prediction.missing.push("the speed of the disk".to_owned());
    }
    prediction.load_s = storage.and_then(|storage| load(input, storage));
    let rates = match compute::Rates::of(input.shape, input.plan, input.profile) {
        Ok(rates) => rates,
        Err(missing) => {
            prediction.missing.push(missing);
            return prediction;
        }
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

//! One machine, with a GPU or without, from what was measured of it.

use super::disk::Disk;
use super::{CostInput, Prediction};
use super::{compute, decode, load, prefill};

/// Predicts; what former runs came to is no part of it.
pub(super) fn predict(input: &CostInput<'_>) -> Prediction {
    let mut prediction = Prediction::default();
    let storage = input.profile.storage.as_ref().filter(|storage| storage.is_measured());
    if storage.is_none() {
        prediction.missing.push("the speed of the disk".to_owned());
    }
    prediction.load_s = storage.and_then(|storage| load::load(input, storage));
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

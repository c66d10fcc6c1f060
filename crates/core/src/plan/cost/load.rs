//! From start to ready.

use super::disk::{Disk, READER_DEPTH};
use super::input::CostInput;
use super::prediction::{Estimate, NOISE};
use crate::profile::{Pattern, Storage};

/// Loading reads the resident weights in file order, and builds the vocabulary.
pub(super) fn load(input: &CostInput<'_>, storage: &Storage) -> Option<Estimate> {
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

//! Drafts for the sequences that run: who proposes them, how many are tried, what became of them.
//!
//! - `proposer`: the seam; what a proposer is asked
//! - `lookup`: prompt lookup
//! - `model`: a draft model
//! - `forced`: acceptance that a benchmark forces
//! - `speculator`: asks them before each step, and learns after it
//!
//! No answer depends on drafts: a sequence keeps those that it would have chosen anyway.

mod forced;
mod lookup;
mod model;
mod proposer;
mod speculator;

pub(super) use speculator::Speculator;

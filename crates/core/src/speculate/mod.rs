//! Speculation, the pure part: tokens that probably come next, how often they come true, and whether trying
//! them pays.
//!
//! - `draft`: a proposed token and how sure its proposer is
//! - `ngram`: prompt lookup, drafts that continue the latest repetition of what was just said
//! - `acceptance`: how often drafts come true, by confidence and by position
//! - `row_times`: what a step of so many rows takes, modelled from bytes and corrected by measurements
//! - `credit`: what drafts may cost
//! - `policy`: how many drafts the next step is to try; none is a choice
//! - `predict`: what drafts would make of a predicted speed
//! - `curve`: acceptance that a benchmark forces
//! - `vocabulary`: whether a draft model speaks the tokens of its target

mod acceptance;
mod credit;
mod curve;
mod draft;
mod ngram;
mod policy;
mod predict;
mod row_times;
mod vocabulary;

pub use acceptance::{Acceptance, Verdict};
pub use curve::AcceptanceCurve;
pub use draft::{Confidence, Draft, Source};
pub use ngram::NgramIndex;
pub use policy::{Joined, Policy, PolicySettings};
pub use predict::{ASSUMED_ACCEPTANCE, SpeculationCost, predict_speculation};
pub use row_times::{RowTimes, StepSample, Widening};
pub use vocabulary::{VocabularyError, check_vocabulary};

//! Replaying routing traces: hit rates without a model, a disk or a clock.
//!
//! Drives the same [`crate::cache::ExpertCache`] and policies as the engine, so a simulated hit rate is the
//! engine's.
//!
//! * `replay`: a trace against a cache
//! * `cost`: what the counts mean in tokens per second on a given disk

mod cost;
mod replay;

pub use cost::{Machine, Prediction};
pub use replay::{Replay, ReplayOptions, belady_for, replay};

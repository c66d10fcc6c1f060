//! Everything that a prediction follows from.

use super::super::hits::Routing;
use super::super::{ExpertLayout, Plan};
use crate::model::ModelShape;
use crate::profile::Profile;

/// Share of missing experts that the next layers' routers name in time. Routers applied to an earlier hidden
/// state name 70 to 89% of the experts in the reports of others; some of them come too late.
const LOOKAHEAD: f64 = 0.7;

/// What is asked of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens that are generated; the predicted speed is that in the middle of them.
    pub generated_tokens: u32,
    /// Most tokens in one graph.
    pub ubatch_tokens: u32,
    /// What is assumed of the router.
    pub routing: Routing,
    /// Share of the missing experts that the engine guesses and reads before they are asked for, 0 to 1.
    pub lookahead: f64,
    /// How many times as many experts are missing as by `routing`.
    pub miss_factor: f64,
}

impl Default for Workload {
    /// A prompt of 512 tokens, an answer of 256, ubatches of 512.
    fn default() -> Self {
        Self {
            prompt_tokens: 512,
            generated_tokens: 256,
            ubatch_tokens: 512,
            routing: Routing::default(),
            lookahead: LOOKAHEAD,
            miss_factor: 1.0,
        }
    }
}

/// Everything that a prediction follows from.
#[derive(Clone, Copy, Debug)]
pub struct CostInput<'a> {
    /// The model.
    pub shape: &'a ModelShape,
    /// Its experts' layout.
    pub layout: &'a ExpertLayout,
    /// Where everything goes.
    pub plan: &'a Plan,
    /// The machine.
    pub profile: &'a Profile,
    /// What is asked of it.
    pub workload: Workload,
}

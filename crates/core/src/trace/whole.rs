//! A whole trace in memory.

use std::collections::BTreeSet;

use super::header::TraceHeader;
use super::tokens::TraceToken;

/// A whole trace in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What it is about.
    pub header: TraceHeader,
    /// Its tokens, in the order they were computed.
    pub tokens: Vec<TraceToken>,
}

impl Trace {
    /// The same tokens with the routes of some layers only, for instance those of one size class.
    #[must_use]
    pub fn of_layers(&self, keep: impl Fn(u32) -> bool) -> Self {
        let mut trace = self.clone();
        for token in &mut trace.tokens {
            token.layers.retain(|routes| keep(routes.layer));
        }
        trace
    }

    /// The layers that any token has routes in, ascending.
    pub fn expert_layers(&self) -> BTreeSet<u32> {
        self.tokens.iter().flat_map(|token| &token.layers).map(|routes| routes.layer).collect()
    }
}

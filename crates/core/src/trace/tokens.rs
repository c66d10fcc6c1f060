//! The routes of tokens.

use serde::{Deserialize, Serialize};

/// What a token was computed for. A recorder that sees only graphs tells them apart by size: a token computed
/// alone is `Decode`, tokens computed together are `Prefill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Part of the prompt.
    Prefill,
    /// Generated.
    Decode,
}

/// The routes of one token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceToken {
    /// Prompt or generated.
    pub phase: Phase,
    /// The layers with routed experts, in the order of the forward pass.
    pub layers: Vec<LayerRoutes>,
}

/// The experts that one token used in one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerRoutes {
    /// Layer index.
    pub layer: u32,
    /// Distinct expert ids, in the router's order.
    pub experts: Vec<u32>,
    /// Router weight of each expert, or empty where they were not recorded.
    pub weights: Vec<f32>,
}

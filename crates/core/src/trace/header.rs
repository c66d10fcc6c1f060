//! What a whole trace is about, and the rules that its tokens keep.

use serde::{Deserialize, Serialize};

use super::error::{FORMAT, TraceError};
use super::tokens::{LayerRoutes, TraceToken};

/// Most layers a header may announce.
pub const MAX_LAYERS: u32 = 1 << 12;

/// Most experts a layer may have.
pub const MAX_EXPERTS: u32 = 1 << 16;

/// What the whole trace is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceHeader {
    /// [`FORMAT`].
    pub format: String,
    /// The model's name, for people.
    pub model: String,
    /// Number of layers in the model; layer ids are below it.
    pub layers: u32,
    /// Routed experts of a layer; expert ids are below it.
    pub experts: u32,
    /// Most experts that a token uses in a layer.
    pub used: u32,
    /// Bytes of one expert (all its slices).
    pub expert_bytes: u64,
}

impl TraceHeader {
    /// A header of the current format.
    pub fn new(model: impl Into<String>, layers: u32, experts: u32, used: u32, expert_bytes: u64) -> Self {
        Self { format: FORMAT.to_owned(), model: model.into(), layers, experts, used, expert_bytes }
    }

    pub(super) fn check(&self) -> Result<(), TraceError> {
        let refuse = |reason: String| Err(TraceError::Header(reason));
        if self.format != FORMAT {
            return refuse(format!("format is {:?}, only {FORMAT:?} can be read", self.format));
        }
        if self.layers == 0 || self.layers > MAX_LAYERS {
            return refuse(format!("{} layers; must be 1 to {MAX_LAYERS}", self.layers));
        }
        if self.experts == 0 || self.experts > MAX_EXPERTS {
            return refuse(format!("{} experts a layer; must be 1 to {MAX_EXPERTS}", self.experts));
        }
        if self.used == 0 || self.used > self.experts {
            return refuse(format!("{} experts used of {}; must be 1 to all", self.used, self.experts));
        }
        if self.expert_bytes == 0 {
            return refuse("expert_bytes is 0; it must be the bytes of one expert".to_owned());
        }
        Ok(())
    }

    /// The rule that `token` breaks, if any.
    pub(super) fn check_token(&self, token: &TraceToken) -> Result<(), String> {
        let mut next_layer = 0;
        for routes in &token.layers {
            self.check_layer(routes, next_layer)?;
            next_layer = routes.layer + 1;
        }
        Ok(())
    }

    fn check_layer(&self, routes: &LayerRoutes, next_layer: u32) -> Result<(), String> {
        let LayerRoutes { layer, experts, weights } = routes;
        if *layer >= self.layers || *layer < next_layer {
            return Err(format!("layer {layer} where {next_layer} to {} may stand", self.layers - 1));
        }
        if experts.is_empty() || experts.len() > self.used as usize {
            return Err(format!("layer {layer} lists {} experts; must be 1 to {}", experts.len(), self.used));
        }
        if let Some(expert) = experts.iter().find(|expert| **expert >= self.experts) {
            return Err(format!("layer {layer} lists expert {expert} of {}", self.experts));
        }
        let mut sorted = experts.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("layer {layer} lists expert {} twice", pair[0]));
        }
        if !weights.is_empty() && weights.len() != experts.len() {
            return Err(format!("layer {layer} has {} weights for {} experts", weights.len(), experts.len()));
        }
        if weights.iter().any(|weight| !weight.is_finite()) {
            return Err(format!("layer {layer} has a router weight that is not a finite number"));
        }
        Ok(())
    }
}

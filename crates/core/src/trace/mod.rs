//! Routing traces: which experts each token used in each layer, as JSON lines.
//!
//! The first line is the [`TraceHeader`], each further line one [`TraceToken`]:
//! ```json
//! {"format":"route-trace/1","model":"…","layers":48,"experts":128,"used":8,"expert_bytes":3059712}
//! {"phase":"decode","layers":[[0,[49,19],[0.7,0.3]],[1,[68,55]]]}
//! ```
//! A layer is `[layer, [expert ids]]` or `[layer, [expert ids], [router weights]]`; layers without experts
//! are left out. Compression is the caller's business.
//!
//! Invariants of what [`TraceReader`] returns and [`TraceWriter`] accepts: layers strictly increase and are
//! below `layers`; the ids of a layer are 1 to `used` distinct numbers below `experts`; there are as many
//! weights as ids, all finite, or none. A line is read only up to [`MAX_LINE_BYTES`], so a hostile file
//! cannot ask for more memory.

mod read;
mod write;

pub use read::TraceReader;
pub use write::TraceWriter;

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The only version so far.
pub const FORMAT: &str = "route-trace/1";
/// Longest line accepted. 61 layers of 8 experts with weights take 10 KB.
pub const MAX_LINE_BYTES: usize = 1 << 20;
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

/// Why a trace could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The underlying reader or writer failed.
    #[error("routing trace, line {line}: {source}")]
    Io {
        /// Line number, from 1.
        line: u64,
        /// What the reader or writer said.
        source: std::io::Error,
    },
    /// The reader came to an end that its own format does not allow, as decompressors do.
    #[error("routing trace: the file is cut off in line {line}; copy it or record it again")]
    CutOff {
        /// Line number, from 1.
        line: u64,
    },
    /// A line is not the JSON it should be.
    #[error("routing trace, line {line}: {source}; each line must be one JSON object of the {FORMAT} format")]
    Json {
        /// Line number, from 1.
        line: u64,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A line is longer than any honest one.
    #[error(
        "routing trace, line {line} is longer than {MAX_LINE_BYTES} bytes; is this an uncompressed trace?"
    )]
    LineTooLong {
        /// Line number, from 1.
        line: u64,
    },
    /// The file ends before the header.
    #[error("routing trace is empty; its first line must be the {FORMAT} header")]
    NoHeader,
    /// The header announces something this version does not know or allow.
    #[error("routing trace header: {0}")]
    Header(String),
    /// A token breaks a rule of the format.
    #[error("routing trace, line {line}: {reason}; record the trace again from this model")]
    Token {
        /// Line number, from 1.
        line: u64,
        /// The rule and what broke it.
        reason: String,
    },
}

impl TraceHeader {
    /// A header of the current format.
    pub fn new(model: impl Into<String>, layers: u32, experts: u32, used: u32, expert_bytes: u64) -> Self {
        Self { format: FORMAT.to_owned(), model: model.into(), layers, experts, used, expert_bytes }
    }

    fn check(&self) -> Result<(), TraceError> {
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
    fn check_token(&self, token: &TraceToken) -> Result<(), String> {
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

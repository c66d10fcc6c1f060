//! Why a synthetic model could not be planned.

use super::{Quant, Shape};
use crate::gguf::GgufError;

/// Why a synthetic model could not be planned.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// No shape has this name.
    #[error("unknown shape \"{0}\": choose one of {list}", list = list(Shape::ALL.iter().map(|s| s.name())))]
    UnknownShape(String),
    /// No quantisation has this name.
    #[error("unknown quantisation \"{0}\": choose one of {list}", list = list(Quant::ALL.iter().map(|q| q.name())))]
    UnknownQuant(String),
    /// The number of layers cannot be had.
    #[error("{shape} cannot have {layers} layers: {why}")]
    Layers {
        /// The shape asked for.
        shape: Shape,
        /// The number of layers asked for.
        layers: u32,
        /// What would be possible.
        why: &'static str,
    },
    /// More shards than tensors, or none.
    #[error(
        "cannot spread {tensors} tensors over {shards} shards: choose 1 to {tensors} shards, 65535 at most"
    )]
    Shards {
        /// Shards asked for.
        shards: u32,
        /// Tensors of the model.
        tensors: usize,
    },
    /// The header could not be made.
    #[error("the header of the synthetic model cannot be written: {0}")]
    Gguf(#[from] GgufError),
}

fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

//! Why a synthetic model could not be planned.

use super::{Shape, UnknownQuant, UnknownShape};
use crate::gguf::GgufError;

/// Why a synthetic model could not be planned.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// No shape has this name.
    #[error(transparent)]
    Shape(#[from] UnknownShape),
    /// No quantisation has this name.
    #[error(transparent)]
    Quant(#[from] UnknownQuant),
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

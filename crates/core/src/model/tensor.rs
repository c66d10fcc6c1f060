//! A tensor of a model: what the file says of it, and what it is for.

use super::{Streaming, TensorRole};
use crate::gguf::TensorInfo;

/// A tensor and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelTensor {
    /// What the file says.
    pub info: TensorInfo,
    /// What it is for.
    pub role: TensorRole,
    /// How it may be streamed.
    pub streaming: Streaming,
    /// The layer it belongs to.
    pub layer: Option<u32>,
}

//! Buffers of our own types, each a kind of memory on one device.
//!
//! - `kind`: the two kinds, and what ggml asks of a buffer type
//! - `types`: the buffer types of one load, and what that load noted
//! - `resident`: memory of the device whose bytes our reader brings
//! - `streamed`: no memory at all

pub(crate) mod kind;
pub(crate) mod resident;
pub(crate) mod streamed;
pub(crate) mod types;

pub use kind::WeightMemory;
pub(crate) use kind::is_streamed;
pub use resident::{DeviceTensor, TensorMemory};
pub(crate) use types::BufferTypes;

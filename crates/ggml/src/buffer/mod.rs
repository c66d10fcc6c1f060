//! Buffers of our own types, each a kind of memory on one device.
//!
//! - `context`: what one of our buffer types is of
//! - `kind`: which one it is, and what ggml asks of it
//! - `types`: the buffer types of one load, and `notes`: what that load did with them
//! - `resident`: memory of the device whose bytes our reader brings
//! - `streamed`: no memory at all

mod context;
pub(crate) mod kind;
mod notes;
pub(crate) mod resident;
pub(crate) mod streamed;
pub(crate) mod types;

pub use context::WeightMemory;
pub(crate) use kind::is_streamed;
pub(crate) use notes::Wanted;
pub use notes::{DeviceTensor, TensorMemory};
pub(crate) use types::BufferTypes;

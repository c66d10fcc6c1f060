//! What a model is made of, read from its GGUF: tensors and their roles, expert geometry, sizes, KV cache.
//!
//! Everything follows from metadata and from the names that llama.cpp gives tensors (`llama-arch.cpp`), not
//! from a list of architectures; the few per-architecture defaults that llama.cpp keeps in code are in
//! `layers`.
//!
//! * `roles`: tensor name → role, layer, how it may be streamed
//! * `experts`: where the bytes of each routed expert lie
//! * `layers`: attention and recurrence of each layer
//! * `kv`: the one formula for the size of the KV cache
//! * `tensor`: one tensor of it
//! * `tables`: which embeddings are read by the row
//! * `asserts`: what llama.cpp would assert on; `rwkv`: vocabularies that it would never come to an end with
//! * `shape`: the model as a whole

mod asserts;
mod error;
mod experts;
mod kv;
mod layers;
mod roles;
mod rwkv;
mod shape;
mod tables;
mod tensor;

#[cfg(test)]
mod tests;

pub use error::ModelError;
pub use experts::{ExpertKey, ExpertLayer, ExpertSlice, ExpertTensor, SizeClass, Window};
pub use kv::KvRequest;
pub use layers::LayerShape;
pub use roles::{ExpertPart, FfnPart, Streaming, TensorRole};
pub use shape::ModelShape;
pub use tensor::ModelTensor;

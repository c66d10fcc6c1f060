//! GGUF, the model file format of ggml: a bounded reader, shards, and a writer. No I/O but on what the caller
//! passes in.
//!
//! * `types`: tensor encodings and their block geometry
//! * `value`, `metadata`: key-value pairs
//! * `header`: what a header says, and the rules for it
//! * `cursor`, `reader`: read a header under bounds
//! * `shards`: models in several files
//! * `retype`: a model as another quantisation of it would be
//! * `writer`: makes headers

mod cursor;
mod error;
mod header;
mod metadata;
mod reader;
mod retype;
mod shards;
mod types;
mod value;
mod writer;

pub use cursor::MAX_HEADER_BYTES;
pub use error::GgufError;
pub use header::{
    ALIGNMENT_KEY, DEFAULT_ALIGNMENT, Header, MAX_ALIGNMENT, MAX_TENSOR_NAME_BYTES, TensorInfo,
};
pub use metadata::Metadata;
pub use reader::read_header;
pub use shards::{GgufSet, ShardName, check_name, merge};
pub use types::GgmlType;
pub use value::{Array, Value};
pub use writer::{HeaderBuilder, Layout};

/// How deep arrays may nest. llama.cpp itself reads one level.
pub const MAX_ARRAY_DEPTH: usize = 4;

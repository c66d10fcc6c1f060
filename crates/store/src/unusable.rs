//! Why something that looks like a model cannot be used. The words are for people and name no folder.

use std::io;

use super::cache::HeaderError;
use super::name::ModelName;

/// Why a model cannot be used. Sentences of it follow the model's name or file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Unusable {
    #[error("it runs on a server of Ollama, not here")]
    Remote,
    #[error("it has a LoRA adapter, and adapters are not supported: merge the adapter into the model first")]
    Adapter,
    #[error("it is a projector, a part of another model")]
    Projector,
    #[error("its weights are safetensors for MLX, not GGUF")]
    Safetensors,
    #[error("it has no weights")]
    NoWeights,
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("its manifest cannot be read: {0}")]
    Manifest(#[source] io::Error),
    #[error("its manifest has a bad digest")]
    BadDigest,
    #[error("its blob {blob} is missing")]
    BlobMissing { blob: String },
    #[error("its blob {blob} is only partly downloaded")]
    BlobPartial { blob: String },
    #[error("its blob {blob} cannot be read: {source}")]
    BlobUnreadable { blob: String, source: io::Error },
    #[error("its blob {blob} is no file")]
    BlobNoFile { blob: String },
    #[error("its blob {blob} has {bytes} bytes instead of {expected}")]
    BlobSize { blob: String, bytes: u64, expected: u64 },
    #[error("its {kind} cannot be read: {source}")]
    LayerUnreadable { kind: String, source: io::Error },
    #[error("its {kind} is no text")]
    LayerNoText { kind: String },
    #[error("its {kind} cannot be read: {source}")]
    LayerMalformed { kind: String, source: serde_json::Error },
    #[error("shard {number} of {count}: {why}")]
    Shard { number: u64, count: u32, why: Box<Unusable> },
    #[error("it is no file")]
    NoFile,
    #[error("its link leads nowhere ({0})")]
    DeadLink(#[source] io::Error),
    #[error("it is missing ({})", .0.kind())]
    Missing(#[source] io::Error),
    #[error("its path is no name")]
    PathIsNoName,
    #[error("its name cannot be made the name of a model")]
    NoName,
    #[error("another model is already called {0}")]
    NameTaken(ModelName),
}

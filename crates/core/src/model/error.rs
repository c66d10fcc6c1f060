//! Why a well-formed GGUF is not a model that this program can run.

use crate::gguf::GgufError;

/// What is wrong with a model.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ModelError {
    #[error(transparent)]
    Metadata(#[from] GgufError),
    #[error(
        "the key \"{key}\" is missing: this is no language model, or it was converted by an unsupported tool"
    )]
    MissingKey { key: String },
    #[error("the key \"{key}\" is {value}, but must be between {least} and {most}")]
    OutOfRange { key: String, value: u64, least: u64, most: u64 },
    #[error("the key \"{key}\" has {found} values, but the model has {layers} layers")]
    PerLayerLength { key: String, found: usize, layers: u32 },
    #[error(
        "tensor \"{name}\" is one expert on its own: this file predates stacked experts (early 2024), convert the model \
         again with a current llama.cpp"
    )]
    UnstackedExperts { name: String },
    #[error("tensor \"{name}\" belongs to layer {layer}, but the model has {layers} layers")]
    LayerBeyondModel { name: String, layer: u32, layers: u32 },
    #[error("tensor \"{name}\" with shape {shape:?} is not a stack of experts [input, output, experts]")]
    NotAStack { name: String, shape: Vec<u64> },
    #[error("tensor \"{name}\" stacks {found} experts, other tensors of layer {layer} stack {expected}")]
    ExpertCountsDiffer { name: String, layer: u32, found: u64, expected: u64 },
    #[error("layer {layer} has routed experts without a {part} tensor: the file is incomplete")]
    MissingPart { layer: u32, part: &'static str },
    #[error("layer {layer} routes to {used} of its {experts} experts for each token, which cannot be")]
    ExpertsUsed { layer: u32, used: u64, experts: u64 },
    #[error(
        "a KV cache row of {elements} elements in layer {layer} is not whole {ty} blocks of {block}: use f16 for the cache"
    )]
    KvRow { layer: u32, elements: u64, ty: &'static str, block: u64 },
    #[error("the vocabulary has the token {token:?} twice: the file is broken, convert the model again")]
    RepeatedToken { token: String },
    #[error(
        "token {token} of the vocabulary has {bytes} bytes, and at most {most} are read: the file is broken"
    )]
    LongToken { token: usize, bytes: usize, most: usize },
    #[error("the key \"{key}\" is {value}: {why}")]
    Unusable { key: String, value: String, why: &'static str },
    #[error("tensor \"{name}\" has the type {ty}, {why}")]
    TensorType { name: String, ty: &'static str, why: &'static str },
    #[error("the file has no vocabulary: the model can neither read nor write text")]
    NoVocabulary,
    #[error("the KV cache would be larger than any memory: ask for a smaller context")]
    KvTooLarge,
}

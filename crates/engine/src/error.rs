//! What can go wrong in the engine, one enum per family of operations.

use hypura_core::plan::PlanError;
use hypura_ggml::{DecodeError, ExecError, LoadError as GgmlError, MediaError, SampleError};
use hypura_storage::{ArenaError, OpenError, ReadError};
use std::path::PathBuf;

/// Why streaming stopped.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A read failed; the message names file, offset, length and cause.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The graph uses a streamed weight in a way that cannot be streamed.
    #[error("tensor {tensor} is used by {op}, which cannot be streamed: use --residency resident")]
    Unsupported {
        /// The weight.
        tensor: String,
        /// ggml's name of the operation.
        op: String,
    },
    /// The graph uses a weight that the plan does not know.
    #[error("tensor {0} is not in the plan of this model")]
    UnknownTensor(String),
    /// The abort flag was raised during a wait.
    #[error("stopped")]
    Stopped,
    /// An earlier request was stopped while the disk hung, and this one needs what was then being read.
    #[error("the disk did not answer in time for an earlier request; try again")]
    TakenBack,
    /// A device read the host's memory, and does not any more.
    #[error("the GPU lost the cache of experts: {0}; load the model again")]
    Import(String),
    /// The reader lost a request; a bug of ours.
    #[error("a read was never answered")]
    LostRead,
    /// A forced route names an expert that the layer does not have.
    #[error(
        "the routes trace does not fit the model: layer {layer} has {experts} experts, {used} of them used per token"
    )]
    Routes {
        /// The layer.
        layer: u32,
        /// Experts of that layer.
        experts: u32,
        /// Experts used by a token there.
        used: u32,
    },
}

impl From<StreamError> for ExecError {
    fn from(error: StreamError) -> Self {
        if matches!(error, StreamError::Stopped) { Self::Stopped } else { Self::engine(error) }
    }
}

/// Why a model could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not there or may not be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Not a GGUF, truncated, or with numbers that cannot be.
    #[error("{path}: {source}", path = path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: hypura_core::gguf::GgufError,
    },
    /// A model this program cannot place.
    #[error("{path}: {source}", path = path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: hypura_core::model::ModelError,
    },
    /// The plan cannot work.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// llama.cpp refused.
    #[error(transparent)]
    Ggml(#[from] GgmlError),
    /// No memory for the pools.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A read failed while loading.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No reader could be opened.
    #[error(transparent)]
    Reader(#[from] hypura_storage::reader::OpenReaderError),
    /// The forced routes name experts that the model does not have.
    #[error(
        "the routes trace does not fit the model: it names expert {expert}, and a layer of this model has {experts} \
         experts; take the trace of a model with as many"
    )]
    Routes {
        /// The highest expert of the trace.
        expert: u32,
        /// Experts of the layer that has fewest; 0 in a dense model.
        experts: u32,
    },
    /// The folder for KV caches, or the model's files, cannot be read.
    #[error("cannot use {path} for KV caches: {source}", path = path.display())]
    KvCache {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no thread to serve from.
    #[error("cannot start a thread for the model: {0}")]
    Thread(std::io::Error),
    /// The load was cancelled.
    #[error("loading was stopped")]
    Stopped,
    /// The projector for images and sounds cannot be used.
    #[error(transparent)]
    Projector(#[from] crate::media::projector::ProjectorError),
    /// The draft model does not fit the model.
    #[error(transparent)]
    Draft(#[from] DraftModelError),
    /// More than one device for layers.
    #[error("layers cannot be spread over several devices: name one of them")]
    Devices,
    /// There is no device of that name.
    #[error("there is no device {name} (--device): {}", known_devices(known, refused))]
    NoDevice {
        /// The name that was asked for.
        name: String,
        /// Names of the GPUs that there are.
        known: Vec<String>,
        /// Why libraries of backends could not be loaded.
        refused: Vec<String>,
    },
    /// A GPU is named beside workers.
    #[error(
        "the GPU {name} (--device) cannot compute beside workers (--worker): layers are divided among processors and workers, \
         or processor and GPU; leave one of the two out"
    )]
    GpuBesideWorkers {
        /// The name that was asked for.
        name: String,
    },
    /// A weight that llama.cpp wants is not in the file.
    #[error("llama.cpp asks for tensor {0}, which is not in the file")]
    MissingTensor(String),
    /// A weight that stays in memory would not be read.
    #[error("llama.cpp did not ask for weight {0}, which the model needs: it cannot be loaded")]
    UnreadWeight(String),
}

/// Why a model cannot draft for another.
#[derive(Debug, thiserror::Error)]
pub enum DraftModelError {
    /// It speaks other tokens.
    #[error("{path} cannot draft for this model: {source}", path = path.display())]
    Vocabulary {
        /// The draft model.
        path: PathBuf,
        /// The difference.
        source: hypura_core::speculate::VocabularyError,
    },
    /// It writes no text.
    #[error("{path} cannot draft: it is a model for embeddings", path = path.display())]
    Embeds {
        /// The draft model.
        path: PathBuf,
    },
    /// Tokens cannot be taken back from its state.
    #[error(
        "{path} cannot draft: tokens that did not come true cannot be taken back from the recurrent state of \
         {architecture} models", path = path.display()
    )]
    Recurrent {
        /// The draft model.
        path: PathBuf,
        /// llama.cpp's name of its architecture.
        architecture: String,
    },
}

fn known_devices(known: &[String], refused: &[String]) -> String {
    if known.is_empty() {
        let refused: String = refused.iter().map(|reason| format!("; {reason}")).collect();
        return format!("no GPU was found{refused}; `hypura doctor` says what is missing");
    }
    format!("there is {}", known.join(", "))
}

/// Why a generation ended early.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The prompt has no tokens.
    #[error("the prompt is empty: give at least one word")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error("the prompt has {prompt} tokens and the context holds {context}: shorten it or raise --ctx")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// All sequences of the context are in use; a bug of the caller.
    #[error("all sequences of the context are in use")]
    NoSequence,
    /// No token could be chosen.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The model computed something that is no number: its file or the machine's memory is damaged.
    #[error("the model computed numbers that are none: its file is damaged, or no model of its architecture")]
    NotFinite,
    /// The model has no embeddings to give.
    #[error("this model gives no embeddings")]
    NoEmbedding,
    /// The model was unloaded before the request was done.
    #[error("the model was unloaded before the answer was complete")]
    Unloaded,
    /// Decoding failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A picture or a sound could not be encoded.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A picture whose rows must be in one graph has too many of them.
    #[error("the image takes {rows} tokens that must be computed at once, and {most} can be: raise --ubatch")]
    ImageTooLong {
        /// Rows of the picture.
        rows: usize,
        /// Rows that one graph may have.
        most: usize,
    },
    /// The chat template refused the messages.
    #[error(transparent)]
    Template(#[from] GgmlError),
    /// The caller's sink failed (a closed pipe, a full disk).
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
}

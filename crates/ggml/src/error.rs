//! What can go wrong, one enum per family of operations.

use std::path::PathBuf;

/// Why a model could not be loaded or prepared.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The path contains a NUL byte.
    #[error("the path {0:?} contains a NUL byte")]
    Path(PathBuf),
    /// llama.cpp refused the file; the text is its own.
    #[error("llama.cpp cannot load {path}: {reason}", path = path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// llama.cpp's last error lines.
        reason: String,
    },
    /// The load was cancelled.
    #[error("loading was stopped")]
    Stopped,
    /// llama.cpp refused the context.
    #[error("llama.cpp cannot create a context of {context} tokens: {reason}")]
    Context {
        /// Tokens asked for.
        context: u32,
        /// llama.cpp's last error lines.
        reason: String,
    },
    /// The linked ggml speaks another version of the backend interface.
    #[error(
        "the linked ggml has backend interface {found}, this program was built for {expected}: rebuild it"
    )]
    Interface {
        /// What the library says.
        found: u32,
        /// What this crate was written for.
        expected: u32,
    },
    /// ggml has no CPU device, or one that cannot be wrapped.
    #[error("ggml offers no CPU device")]
    NoCpu,
    /// A device cannot be used.
    #[error("{0} cannot be used")]
    Device(String),
    /// A device has no more memory.
    #[error(
        "{device} has no {bytes} bytes of memory left: use less of it (--vram SIZE) or none (--device none)"
    )]
    DeviceMemory {
        /// Its name.
        device: String,
        /// What was asked for.
        bytes: usize,
    },
    /// A device does not read host memory by itself.
    #[error(
        "{device} refuses to read {bytes} bytes of the host's memory: use less (--memory SIZE), or the CPU \
         for experts (--cpu-moe) or everything (--device none)"
    )]
    Import {
        /// Its name.
        device: String,
        /// What it was to read.
        bytes: usize,
    },
    /// A callback failed while llama.cpp loaded the model.
    #[error("internal error while loading: {0}")]
    Callback(String),
    /// A baseline cannot be had any more in this process.
    #[error("ggml's CPU device is decorated in this process: llama.cpp alone needs another one")]
    Decorated,
    /// No threads could be started.
    #[error("cannot start {0} computing threads: use fewer (--threads)")]
    Threads(i32),
    /// A measurement of the compute backend could not be made.
    #[error("cannot measure the speed of the processor: {0}")]
    Measure(String),
    /// The chat template could not be read.
    #[error("the chat template of the model cannot be used: {0}")]
    Template(String),
}

/// Why an [`Executor`](crate::Executor) stopped a graph. The engine's own error travels inside, unchanged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecError {
    /// The engine failed (a read, a full cache).
    #[error(transparent)]
    Engine(std::sync::Arc<dyn std::error::Error + Send + Sync>),
    /// The engine was waiting when the abort flag was raised.
    #[error("stopped")]
    Stopped,
    /// The inner backend failed.
    #[error("the compute backend failed with status {0}")]
    Backend(i32),
    /// A device failed.
    #[error(
        "{device} failed while it computed (status {status}): its memory is full (use less with --vram), \
         or its driver has lost it"
    )]
    Device {
        /// Its name.
        device: String,
        /// What its backend said.
        status: i32,
    },
    /// The engine broke a rule of this crate (a slice of the wrong size, an id out of range).
    #[error("streaming error: {0}")]
    Misuse(String),
    /// A weight that is streamed was read as if it were in memory.
    #[error("tensor {0} is streamed, and was read as if it were in memory: use --residency resident")]
    Misread(String),
    /// A panic in the engine, caught before it could reach C.
    #[error("internal error while streaming: {0}")]
    Panic(String),
}

impl ExecError {
    /// Wraps an error of the engine.
    pub fn engine(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Engine(std::sync::Arc::new(error))
    }
}

/// Why a decode failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecodeError {
    /// Streaming failed: this decode is void, the context can go on with the next one.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The abort flag was raised.
    #[error("stopped")]
    Aborted,
    /// No room in the KV cache for the batch.
    #[error("no room in the context for {0} more tokens")]
    NoRoom(usize),
    /// llama.cpp refused the batch.
    #[error("llama.cpp cannot decode: {reason} (code {code})")]
    Refused {
        /// The returned code.
        code: i32,
        /// llama.cpp's last error lines.
        reason: String,
    },
    /// Asked for logits of a token that has none.
    #[error("no logits were computed for batch entry {0}")]
    NoLogits(i32),
}

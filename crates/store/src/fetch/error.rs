//! Why a model elsewhere could not be looked at.

use hypura_core::gguf::GgufError;
use hypura_core::model::ModelError;

use crate::web::HttpError;

/// Why the header of a model elsewhere could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What follows `hf:` is not `org/repo` or `org/repo:QUANT`.
    #[error("`hf:{0}` names no repository: write it like hf:org/repo:Q4_K_M")]
    NotARepository(String),
    /// A request failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Hugging Face answered something else than a list of files.
    #[error("the list of files of {repo} cannot be read")]
    FileList {
        /// `org/repo`.
        repo: String,
        /// What the JSON parser says.
        source: serde_json::Error,
    },
    /// A repository without models of this format.
    #[error("{0} has no GGUF files: look for a repository with -GGUF in its name")]
    NoGguf(String),
    /// No file has this quantisation.
    #[error("{repo} has no {quant}: there are {files}")]
    NoSuchFile {
        /// `org/repo`.
        repo: String,
        /// As it was asked for.
        quant: String,
        /// Those that there are.
        files: String,
    },
    /// A model of which a part is missing.
    #[error("{repo} lacks {shard}, a part of the model")]
    NoSuchShard {
        /// `org/repo`.
        repo: String,
        /// The file.
        shard: String,
    },
    /// The text is no name of anything.
    #[error("invalid model name")]
    NotAName(String),
    /// A registry does not have the model.
    #[error("model '{name}' not found: {source}")]
    NoSuchModel {
        /// As it was asked for.
        name: String,
        /// What the registry said.
        source: HttpError,
    },
    /// A manifest that makes no sense.
    #[error("the manifest of {name} cannot be read: {what}")]
    Manifest {
        /// The model.
        name: String,
        /// Why.
        what: String,
    },
    /// A model in another format.
    #[error("{0} has no weights in GGUF files")]
    NoWeights(String),
    /// A registry without TLS that is not on this machine.
    #[error("insecure protocol http: allow it with --insecure (`insecure` in /api/pull), or use https")]
    Insecure,
    /// The network must not be used.
    #[error(
        "model '{0}' not found on this machine, and the network is not to be used (HF_HUB_OFFLINE, HYPURA_OFFLINE)"
    )]
    Offline(String),
    /// The file is no GGUF, or its shards do not belong together.
    #[error("{url}")]
    Header {
        /// Of the file.
        url: String,
        /// What is wrong with it.
        source: GgufError,
    },
    /// A GGUF of something that this program does not run.
    #[error("{url}")]
    Shape {
        /// Of the first file.
        url: String,
        /// What is wrong with it.
        source: ModelError,
    },
}

impl FetchError {
    pub(super) fn header(url: &str, source: GgufError) -> Self {
        Self::Header { url: url.to_owned(), source }
    }
}

//! Why a pull ended without a model.

use std::io;
use std::path::PathBuf;

use crate::StoreError;
use crate::fetch::FetchError;
use crate::web::HttpError;
use hypura_core::plan::human_bytes;

/// Why a pull ended without a model. What arrived stays, and the next pull continues it, unless the message
/// says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The name leads nowhere, or its server fails.
    #[error("pull model manifest: {0}")]
    Find(#[source] FetchError),
    /// A server failed, again and again.
    #[error("{file}: {source} (tried {tries} times; what arrived is kept)")]
    GaveUp {
        /// The file.
        file: String,
        /// Tries without a byte of progress.
        tries: u32,
        /// The last failure.
        source: HttpError,
    },
    /// A server said no.
    #[error("{file}: {source}")]
    Refused {
        /// The file.
        file: String,
        /// What it said.
        source: HttpError,
    },
    /// The server has another file now.
    #[error("{file} changed on its server while it arrived, more than once: try again")]
    Changed {
        /// The file.
        file: String,
    },
    /// What arrived is not what was announced.
    #[error(
        "{file}: digest mismatch, expected \"{expected}\", got \"{got}\": the server sends other bytes; they were \
         removed"
    )]
    Mismatch {
        /// The file.
        file: String,
        /// As announced.
        expected: String,
        /// As received.
        got: String,
    },
    /// The disk has too little room.
    #[error(
        "there is no room: {} are missing and {} are free where models are kept; remove models (`hypura rm`), name \
         another folder (HYPURA_MODELS, HF_HUB_CACHE), or force it",
        human_bytes(*.missing_bytes), human_bytes(*.free_bytes)
    )]
    NoRoom {
        /// Bytes that must still arrive.
        missing_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// The system refused.
    #[error("cannot {what} {}: {source} (what arrived is kept)", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store cannot be changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever asked does not want it any more.
    #[error("stopped; what arrived is kept")]
    Cancelled,
}

impl PullError {
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// What a client may see: no path of this machine.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::Io { what, source, .. } => {
                format!("cannot {what} a file of the model store: {source} (what arrived is kept)")
            }
            Self::Store(error) => error.public_message(),
            other => other.to_string(),
        }
    }
}

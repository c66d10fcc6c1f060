//! What can go wrong in the store, with the HTTP status that it means and a text that may be sent to
//! strangers.

use std::io;
use std::path::PathBuf;

use super::digest::NotADigest;
use super::name::NameError;
use super::unusable::Unusable;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The text is no name of a model.
    #[error("invalid model name")]
    InvalidName(String),
    /// No store has the model. Shown as the request spelled it.
    #[error("model '{0}' not found")]
    NotFound(String),
    /// The model is there but cannot be used; says why.
    #[error("model '{name}' cannot be used: {why}")]
    Broken {
        /// Its name.
        name: String,
        /// Why.
        why: Box<Unusable>,
    },
    /// The model belongs to another program's store, which is never written to.
    #[error("model '{name}' belongs to {owner}: {way_out}")]
    Foreign {
        /// Its name.
        name: String,
        /// Whose it is.
        owner: &'static str,
        /// What to do instead.
        way_out: &'static str,
    },
    /// The text is no digest.
    #[error("invalid digest format")]
    BadDigest,
    /// Content and digest differ.
    #[error("digest mismatch, expected \"{expected}\", got \"{got}\"")]
    DigestMismatch {
        /// As announced.
        expected: String,
        /// As received.
        got: String,
    },
    /// No blob of that digest.
    #[error("blob {0} not found")]
    NoBlob(String),
    /// The request makes no sense; says why.
    #[error("{0}")]
    BadRequest(String),
    /// There is no home directory to keep models in.
    #[error("there is no home directory to keep models in: name a folder in HYPURA_MODELS")]
    NoHome,
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl From<NameError> for StoreError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Invalid(text) => Self::InvalidName(text),
            NameError::Both => Self::BadRequest(error.to_string()),
        }
    }
}

impl From<NotADigest> for StoreError {
    fn from(_: NotADigest) -> Self {
        Self::BadDigest
    }
}

impl StoreError {
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::NotFound(_) | Self::NoBlob(_) => 404,
            Self::InvalidName(_)
            | Self::Foreign { .. }
            | Self::BadDigest
            | Self::DigestMismatch { .. }
            | Self::BadRequest(_) => 400,
            Self::Broken { .. } | Self::NoHome | Self::Io { .. } => 500,
        }
    }

    /// What the client may see: no path of this machine.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::Io { what, source, .. } => {
                format!("cannot {what} a file of the model store: {}", source.kind())
            }
            other => other.to_string(),
        }
    }
}

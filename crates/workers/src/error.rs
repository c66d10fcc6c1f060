//! Why there is no connection to a worker.

use std::io;

/// Why a worker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// An address that is none.
    #[error("{0} is no address of a worker: write HOST or HOST:PORT")]
    Address(String),
    /// Nobody answers there.
    #[error("the worker {address} cannot be reached: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Whoever is there does not speak as a worker does.
    #[error("what listens at {address} is no worker of Hypura, or the connection broke: {reason}")]
    Protocol {
        /// Where.
        address: String,
        /// What happened.
        reason: String,
    },
    /// No secret in common.
    #[error(
        "this machine is not paired with the worker {address}: run `hypura worker --pair` there, and \
         `hypura workers --pair CODE` here"
    )]
    NotPaired {
        /// Where.
        address: String,
    },
    /// The worker does not know the secret that it claims to know.
    #[error(
        "the worker {address} could not prove that it knows the pairing code: somebody may be in between"
    )]
    Impostor {
        /// Where.
        address: String,
    },
    /// Another program.
    #[error("the worker {address} is {theirs}, this is {ours}: both must be the same")]
    Version {
        /// Where.
        address: String,
        /// What it is.
        theirs: String,
        /// What this is.
        ours: String,
    },
    /// It does not want to.
    #[error("the worker {address} refuses: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// Its words.
        reason: String,
    },
    /// Files of codes.
    #[error("{what}: {source}")]
    File {
        /// What could not be done.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A pairing code that is none.
    #[error("that is no pairing code: it has 24 letters and digits in groups of four")]
    Code,
    /// The system's random numbers or cryptography failed.
    #[error("cryptography is not available: {0}")]
    Crypto(String),
    /// Names on the local network cannot be looked up.
    #[error("the local network cannot be searched: {0}")]
    Discovery(String),
}

impl WorkerError {
    pub(crate) fn file(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::File { what, source }
    }
}

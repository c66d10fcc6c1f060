//! Why a reader could not be opened.

use std::io;

/// Why a reader could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenReaderError {
    /// The system refused io_uring.
    #[error("io_uring was refused ({what}: {source}); use --reader pread or --reader auto")]
    UringRefused {
        /// The step that failed.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// This system has no io_uring.
    #[error("io_uring exists only on Linux; use --reader pread or --reader auto")]
    NoUring,
    /// A worker thread could not be started.
    #[error("cannot start a thread for the {reader} reader: {source}")]
    Thread {
        /// Name of the reader.
        reader: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

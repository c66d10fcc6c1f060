//! Why a request to a server failed.

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the connection broke.
    #[error("the server at {address} cannot be reached: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The server says no, with its own words.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The answer makes no sense.
    #[error("the answer of the server at {address} cannot be read: {why}")]
    Nonsense {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
}

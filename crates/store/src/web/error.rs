//! What goes wrong with a server.

use std::time::Duration;

/// Why a file on a server could not be read. `url` is the file's address, before any redirect.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum HttpError {
    #[error("{url} cannot be reached: {source}")]
    Unreachable { url: String, source: Box<ureq::Error> },
    #[error("{url} is not there (HTTP {status}): check the name{hint}")]
    NotFound { url: String, status: u16, hint: &'static str },
    #[error("{url} cannot be read (HTTP {status}){}", told(*.retry_after))]
    Refused { url: String, status: u16, retry_after: Option<Duration> },
    #[error(
        "the server of {url} does not send parts of files (no HTTP Range): download the file and plan that"
    )]
    NoRange { url: String },
    #[error("the server of {url} answered with another part of the file than asked for ({what})")]
    WrongRange { url: String, what: String },
    #[error("{url} broke off after {got} of {expected} bytes: try again")]
    Truncated { url: String, got: u64, expected: u64 },
    #[error("{url} redirects without end")]
    RedirectLoop { url: String },
    #[error("{url} redirects to {to}, which is no place to follow to")]
    BadRedirect { url: String, to: String },
    #[error("{url} sends less than {least_bytes_per_s} bytes a second")]
    Stalled { url: String, least_bytes_per_s: u64 },
    #[error("the answer of {url} makes no sense: {what}")]
    Nonsense { url: String, what: String },
}

fn told(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| format!(": it asks to wait {} s", wait.as_secs()))
}

impl HttpError {
    /// Whether the same request may go well a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => {
                !matches!(**source, ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_))
            }
            Self::Refused { status, .. } => matches!(status, 408 | 416 | 425 | 429 | 500..=599),
            Self::WrongRange { .. } | Self::Truncated { .. } | Self::Stalled { .. } => true,
            Self::NotFound { .. }
            | Self::NoRange { .. }
            | Self::RedirectLoop { .. }
            | Self::BadRedirect { .. }
            | Self::Nonsense { .. } => false,
        }
    }

    /// How long the server asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

//! Why a request was refused, or failed while it ran: what a client is told, without what only this process
//! can hold.

use hypura_ggml::Token;
use serde::{Deserialize, Serialize};

use crate::error::GenerateError;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SubmitError {
    /// Too many wait.
    #[error("too many requests are waiting ({0}): try again later")]
    QueueFull(usize),
    /// The model is being unloaded.
    #[error("the model is being unloaded")]
    Stopped,
    /// The prompt does not fit into the largest context that the plan has room for.
    #[error("the prompt has {prompt} tokens and the context holds {context}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// The grammar cannot be used.
    #[error("{0}")]
    BadGrammar(String),
    /// The prompt has no tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt has places of media that it does not have.
    #[error("the prompt and its media do not fit each other")]
    BadMedia,
    /// A picture or a sound cannot be used, or the model takes none.
    #[error("{0}")]
    UnusableMedia(String),
    /// A token that the vocabulary does not have.
    #[error("the vocabulary has no token {0}")]
    BadToken(Token),
}

/// Why a request failed after it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct RequestError {
    /// Whose fault it is.
    pub kind: RequestErrorKind,
    /// What happened, with the causes.
    pub message: String,
}

/// Whose fault it is that a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestErrorKind {
    /// The request's: it cannot be answered as it is.
    Request,
    /// Nobody's: the model was unloaded meanwhile, and may be loaded again.
    Unloaded,
    /// The engine's, or the machine's.
    Engine,
}

impl From<&GenerateError> for RequestError {
    fn from(error: &GenerateError) -> Self {
        let kind = match error {
            GenerateError::EmptyPrompt
            | GenerateError::PromptTooLong { .. }
            | GenerateError::ImageTooLong { .. } => RequestErrorKind::Request,
            GenerateError::Unloaded => RequestErrorKind::Unloaded,
            GenerateError::NoSequence
            | GenerateError::Sample(_)
            | GenerateError::NotFinite
            | GenerateError::NoEmbedding
            | GenerateError::Decode(_)
            | GenerateError::Media(_)
            | GenerateError::Template(_)
            | GenerateError::Output(_) => RequestErrorKind::Engine,
        };
        Self { kind, message: error.to_string() }
    }
}

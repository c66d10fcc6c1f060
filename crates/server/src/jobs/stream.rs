//! The pieces of an answer on their way from the engine to a front end.
//!
//! Dropping a [`PieceStream`] cancels the job, wherever it is: waiting for its model, queued, or being worked
//! on.

use tokio::sync::mpsc;

use crate::Failure;
use crate::job::{Piece, Summary, TokenLogprob, ToolCall};

/// The pieces of one answer.
pub struct PieceStream {
    pieces: mpsc::UnboundedReceiver<Piece>,
    first: Option<Piece>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Collected {
    /// The reasoning.
    pub thinking: String,
    /// The answer.
    pub content: String,
    /// Calls of tools.
    pub tool_calls: Vec<ToolCall>,
    /// All log-probabilities.
    pub logprobs: Vec<TokenLogprob>,
    /// What it took.
    pub summary: Summary,
}

impl PieceStream {
    pub(crate) fn new(pieces: mpsc::UnboundedReceiver<Piece>) -> Self {
        Self { pieces, first: None }
    }

    /// The next piece; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Piece> {
        match self.first.take() {
            Some(piece) => Some(piece),
            None => self.pieces.recv().await,
        }
    }

    /// Waits until it is known whether the request is good, and keeps the piece that says so.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn opening(&mut self) -> Result<(), Failure> {
        match self.next().await {
            Some(Piece::Failed(failure)) => Err(failure),
            Some(piece) => {
                self.first = Some(piece);
                Ok(())
            }
            None => Err(lost()),
        }
    }

    /// The whole answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn collect(mut self) -> Result<Collected, Failure> {
        let mut thinking = String::new();
        let mut content = String::new();
        let mut tool_calls = Vec::new();
        let mut all = Vec::new();
        while let Some(piece) = self.next().await {
            match piece {
                Piece::Started { .. } | Piece::Progress { .. } => {}
                Piece::Thinking { text, logprobs } => {
                    thinking.push_str(&text);
                    all.extend(logprobs);
                }
                Piece::Content { text, logprobs } => {
                    content.push_str(&text);
                    all.extend(logprobs);
                }
                Piece::ToolCall(call) => tool_calls.push(call),
                Piece::Done(summary) => {
                    let summary = *summary;
                    return Ok(Collected { thinking, content, tool_calls, logprobs: all, summary });
                }
                Piece::Failed(failure) => return Err(failure),
            }
        }
        Err(lost())
    }
}

fn lost() -> Failure {
    Failure::internal("the answer was cut off: the model or the server stopped")
}

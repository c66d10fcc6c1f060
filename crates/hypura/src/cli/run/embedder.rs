//! Models for embeddings, which cannot answer: what to do with them instead.

use std::fmt;

/// The error of asking one for an answer.
pub(super) fn refused(model: impl fmt::Display) -> anyhow::Error {
    anyhow::anyhow!(
        "{model} is a model for embeddings: it turns texts into vectors and cannot answer. Serve it with `hypura serve` and \
         send texts to /api/embed or /v1/embeddings"
    )
}

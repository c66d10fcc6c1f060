//! What is wrong with a template.

/// Why a template in Go's language cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoTemplateError {
    /// Something begins and does not end.
    #[error("{0} is not closed")]
    Unclosed(&'static str),
    /// Something stands where it cannot.
    #[error("unexpected {0}")]
    Unexpected(String),
    /// A variable that nobody declared.
    #[error("undefined variable {0}")]
    UndefinedVariable(String),
    /// Go's, and not here.
    #[error("{0} is not supported here")]
    Unsupported(String),
    /// Too many things within each other.
    #[error("it is nested too deeply")]
    TooDeep,
}

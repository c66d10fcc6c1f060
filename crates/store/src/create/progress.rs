//! What is being done, for those who wait.

use serde::Serialize;

/// What is being done, in the words of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What.
    pub status: String,
    /// Of which blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Of how many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// How many are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}

impl Progress {
    /// A step without figures.
    #[must_use]
    pub fn status(status: impl Into<String>) -> Self {
        Self { status: status.into(), digest: None, total: None, completed: None }
    }
}

/// Observer of a model being created.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(Progress);

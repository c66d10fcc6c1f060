//! Why a schema cannot be enforced.

/// Why a schema cannot be enforced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{reason}", place, if place.is_empty() { "" } else { ": " })]
pub struct SchemaError {
    /// The path in the schema: `properties.age`; empty for the whole of it.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

impl SchemaError {
    /// Of the whole schema.
    pub(crate) fn at_root(reason: impl Into<String>) -> Self {
        Self::at("", reason)
    }

    pub(super) fn at(place: &str, reason: impl Into<String>) -> Self {
        Self { place: place.to_owned(), reason: reason.into() }
    }
}

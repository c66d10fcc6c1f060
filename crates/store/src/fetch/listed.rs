//! A file in a list of a repository.

use crate::Digest;

/// A file as it is listed.
#[derive(Clone, Debug)]
pub(super) struct ListedFile {
    pub path: String,
    /// `None` where the list does not say.
    pub bytes: Option<u64>,
    pub identity: Option<Digest>,
}

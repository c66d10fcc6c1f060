//! What can be wrong with media, and finding out what was.

use crate::log;
use std::ffi::{CStr, c_char};
use std::path::Path;

/// What is wrong with a projector, a picture or a sound. The texts name no files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// The projector cannot be used.
    #[error("the projector cannot be used: {0}")]
    Projector(String),
    /// The load was cancelled.
    #[error("loading was stopped")]
    Stopped,
    /// A picture or a sound cannot be used.
    #[error("the image or audio cannot be used: {0}")]
    Medium(String),
    /// The projector failed.
    #[error("the image or audio could not be encoded: {0}")]
    Encode(String),
}

/// A buffer for a reason.
pub(super) struct Reason([u8; Self::ROOM]);

impl Reason {
    pub(super) const ROOM: usize = 1024;

    pub(super) fn new() -> Self {
        log::clear();
        Self([0; Self::ROOM])
    }

    pub(super) fn pointer(&mut self) -> *mut c_char {
        self.0.as_mut_ptr().cast()
    }

    /// What the shim wrote, or else what mtmd logged, without `path`.
    pub(super) fn text(self, path: Option<&Path>) -> String {
        let thrown = CStr::from_bytes_until_nul(&self.0).map(|text| text.to_string_lossy().trim().to_owned());
        let text = thrown.ok().filter(|text| !text.is_empty()).unwrap_or_else(log::take);
        let text = text.lines().next().unwrap_or_default().trim();
        match path {
            Some(path) => text.replace(&*path.to_string_lossy(), "the file"),
            None => text.to_owned(),
        }
    }
}

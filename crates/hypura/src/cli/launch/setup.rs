//! What an agent needs to work with a model: variables, arguments, and changes to files. Data only: agents
//! make it, `start`, `files` and `show` use it.

use std::path::PathBuf;

use super::json::{Change, JsonError, changed};

/// What an agent needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Setup {
    /// For its process.
    pub variables: Vec<(&'static str, String)>,
    /// Before those of the person.
    pub arguments: Vec<String>,
    /// Instead of none of the person.
    pub without_arguments: Vec<String>,
    /// Files that must be so before it starts.
    pub files: Vec<FileEdit>,
    /// Files that let it find the server when it is started otherwise.
    pub lasting: Vec<FileEdit>,
    /// Whether `files` alone let it find the server when it is started otherwise.
    pub stands_in_files: bool,
    /// What to do in the agent, or how to start it, once the files are written.
    pub hint: Option<String>,
}

/// A change to a file.
#[derive(Clone, Debug)]
pub(super) struct FileEdit {
    pub path: PathBuf,
    pub content: Content,
}

/// What becomes of the content of a file.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Some values of a JSON file change, and nothing else.
    Json(Vec<Change>),
    /// The file is ours as a whole.
    Whole(String),
}

impl FileEdit {
    pub fn json(path: PathBuf, changes: Vec<Change>) -> Self {
        Self { path, content: Content::Json(changes) }
    }

    pub fn whole(path: PathBuf, text: String) -> Self {
        Self { path, content: Content::Whole(text) }
    }

    /// The text of the file afterwards.
    ///
    /// # Errors
    /// When what is there is broken, or something else than these changes expect.
    pub fn applied(&self, before: Option<&str>) -> Result<String, JsonError> {
        match &self.content {
            Content::Json(changes) => changed(before.unwrap_or_default(), changes),
            Content::Whole(text) => Ok(text.clone()),
        }
    }

    /// Whether the file is ours as a whole.
    pub fn is_ours(&self) -> bool {
        matches!(self.content, Content::Whole(_))
    }
}

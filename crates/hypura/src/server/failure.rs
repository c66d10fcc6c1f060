//! What goes wrong in a request, as a status and one sentence; each protocol writes it in its own shape.
//!
//! A sentence for a client names the model and the way out, never a path, a pointer or a line of code.

use http::StatusCode;

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The HTTP status, where nothing was sent yet.
    pub status: StatusCode,
    /// One sentence for the client.
    pub message: String,
}

impl Failure {
    /// A failure with any status.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400: the request is wrong.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404: no such model, blob or path.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 500: we or the model failed.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 503: too much to do.
    #[must_use]
    pub fn busy() -> Self {
        // Two blanks: clients compare with Ollama's text.
        let message = "server busy, please try again.  maximum pending requests exceeded";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 404 in the words that clients look for.
    #[must_use]
    pub fn no_model(name: &str) -> Self {
        Self::not_found(format!("model '{name}' not found"))
    }
}

/// `text` without anything that looks like a path: what the engine says of a file is for the log of this machine.
#[must_use]
pub fn without_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, word) in text.split(' ').enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(&without_path(word));
    }
    out
}

/// A word; where a path begins in it (a slash that follows no letter or digit), only the file's name stays.
fn without_path(word: &str) -> String {
    let begins = word.char_indices().find(|(at, c)| {
        let before = word[..*at].chars().next_back();
        matches!(c, '/' | '\\') && !before.is_some_and(char::is_alphanumeric) && word.len() > at + 1
    });
    let Some((at, _)) = begins else { return word.to_owned() };
    let name = word[at..].rsplit(['/', '\\']).next().unwrap_or_default();
    let before = word[..at].trim_end_matches(['~', '.']);
    format!("{before}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_file_names() {
        assert_eq!(without_paths("cannot open /srv/models/a.gguf: no file"), "cannot open a.gguf: no file");
        assert_eq!(without_paths("\"/a/b\" and (~/c/d.gguf)"), "\"b\" and (d.gguf)");
        assert_eq!(without_paths("1/2 of it, tok/s"), "1/2 of it, tok/s");
    }
}

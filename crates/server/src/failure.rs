//! What goes wrong in a request, as a status and one sentence; each protocol writes it in its own shape.
//!
//! A sentence for a client names the model and the way out, never a path, a pointer or a line of code.

use http::StatusCode;
use hypura_engine::request::{RequestError, RequestErrorKind};
use serde::{Deserialize, Serialize};

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// The HTTP status, where nothing was sent yet.
    #[serde(with = "number")]
    pub status: StatusCode,
    /// One sentence for the client.
    pub message: String,
    /// What protocols have words of their own for.
    pub cause: Cause,
}

/// A cause that protocols tell in words and codes of their own, by which clients find out what to do about
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The message says it all.
    #[default]
    Other,
    /// The prompt does not fit into the largest context that the model can have.
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that a prompt may have.
        most: usize,
    },
}

/// A status as its number.
mod number {
    use http::StatusCode;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(status.as_u16())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
        StatusCode::from_u16(u16::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Failure {
    /// A failure with any status.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), cause: Cause::Other }
    }

    /// 400: the prompt is longer than a context of `context` tokens, which has to hold a token of the answer
    /// too.
    #[must_use]
    pub fn prompt_too_long(tokens: usize, context: usize, advice: &str) -> Self {
        let message =
            format!("the prompt has {tokens} tokens, which exceeds the context length of {context}{advice}");
        let cause = Cause::PromptTooLong { tokens, most: context.saturating_sub(1) };
        Self { cause, ..Self::bad_request(message) }
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

    /// What a request's end says, whose words may be shown to the client.
    #[must_use]
    pub fn of_request(error: RequestError) -> Self {
        match error.kind {
            RequestErrorKind::Request => Self::bad_request(error.message),
            RequestErrorKind::Unloaded | RequestErrorKind::Engine => Self::internal(error.message),
        }
    }

    /// 404 in the words that clients look for.
    #[must_use]
    pub fn no_model(name: &str) -> Self {
        Self::not_found(format!("model '{name}' not found"))
    }
}

/// `text` without the folders of paths: what the engine says of a file is for the log of this machine, a
/// client gets the file's name.
///
/// A path begins with a slash that follows no letter or digit. It ends where messages end them: at a colon
/// and a blank, at the end of a line, at the quote that it began with; not at a blank, because folders have
/// blanks in their names (`Application Support`). Everything up to the last slash before that end goes,
/// rather too much than too little.
#[must_use]
pub fn without_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = path_begin(rest) {
        let (before, path) = rest.split_at(begin);
        let quote = before.chars().next_back().filter(|c| matches!(c, '"' | '\'' | '`'));
        let end = path_end(path, quote);
        let folders = path[..end].rfind('/').map_or(0, |at| at + 1);
        out.push_str(before.trim_end_matches(['~', '.']));
        out.push_str(&path[folders..end]);
        rest = &path[end..];
    }
    out.push_str(rest);
    out
}

fn path_begin(text: &str) -> Option<usize> {
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let more = || text[at..].chars().nth(1).is_some_and(|next| !next.is_whitespace());
        if c == '/' && !before.is_alphanumeric() && more() {
            return Some(at);
        }
        before = c;
    }
    None
}

fn path_end(path: &str, quote: Option<char>) -> usize {
    let closes = |(at, _): &(usize, &str)| !path[at + 1..].starts_with(char::is_alphanumeric);
    let closed = quote.and_then(|quote| path.match_indices(quote).find(closes)).map(|(at, _)| at);
    let ends = [path.find(": "), path.find('\n'), closed];
    ends.into_iter().flatten().min().unwrap_or(path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_paths_become_file_names() {
        for (text, told) in [
            ("cannot open /srv/models/a.gguf: no file", "cannot open a.gguf: no file"),
            ("\"/a/b\" and (~/c/d.gguf)", "\"b\" and (d.gguf)"),
            ("1/2 of it, tok/s", "1/2 of it, tok/s"),
            ("/srv/My Models/x.gguf: too short", "x.gguf: too short"),
            ("/srv/Library/Application Support/hypura/models/blobs/sha256-1", "sha256-1"),
            ("'/srv/Bob's Models/x.gguf' is none", "'x.gguf' is none"),
            ("cannot read /srv/a b/c d.gguf: end\n/srv/e f/g.gguf", "cannot read c d.gguf: end\ng.gguf"),
            ("cannot link /srv/a b/c to /srv/d e/f", "cannot link f"),
            ("a / b, 5 tok/s", "a / b, 5 tok/s"),
            ("../models/ä/ö.gguf", "ö.gguf"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(without_paths(text), told, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn errors_no_folder_of_a_path_stays(
            folder in "[A-Za-z][A-Za-z0-9 ._(),'-]{0,20}[a-z]",
            file in "[a-z]{1,8}[.]gguf",
            why in "[a-z ]{0,20}",
        ) {
            let told = without_paths(&format!("cannot read 5 bytes of /srv/{folder}/{file}: {why}"));
            proptest::prop_assert_eq!(told, format!("cannot read 5 bytes of {file}: {why}"));
        }
    }
}

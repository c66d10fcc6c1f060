//! Prompts with media, before and after they are tokenized.

use crate::vocab::Token;

use super::chunk::MediaChunk;
use super::ffi;
use super::medium::Medium;

/// A part of a prompt.
pub enum PromptPart<'a> {
    /// A text; `control` reads control tokens in it (never do that with what a user typed).
    Text {
        /// The text.
        text: &'a str,
        /// Whether control tokens are read.
        control: bool,
    },
    /// A picture or a sound.
    Medium(&'a Medium),
}

impl PromptPart<'_> {
    pub(super) fn raw(&self) -> ffi::Part {
        match self {
            Self::Text { text, control } => ffi::Part {
                text: text.as_ptr().cast(),
                length: text.len(),
                control: *control,
                bitmap: std::ptr::null(),
            },
            Self::Medium(medium) => {
                ffi::Part { text: std::ptr::null(), length: 0, control: false, bitmap: medium.raw() }
            }
        }
    }
}

/// A piece of a tokenized prompt.
#[derive(Debug)]
pub enum PromptPiece {
    /// Tokens.
    Tokens(Vec<Token>),
    /// A picture or a sound, or a part of one.
    Media(MediaChunk),
}

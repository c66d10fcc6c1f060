//! Prompts as data: tokens, or texts and media files that the engine cuts into tokens itself.
//!
//! Nothing here needs a model, so that a prompt can be made where none is loaded, and be sent to where one
//! is.

use hypura_ggml::Token;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The bytes of a picture or sound file.
pub type MediaFile = Arc<Vec<u8>>;

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prompt {
    /// These tokens.
    Tokens(Vec<Token>),
    /// Texts and media one after the other; what the vocabulary puts at the beginning of a text is added.
    Parts(Vec<PromptPart>),
}

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromptPart {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Whether control tokens are read in it: never in what a user typed.
        control: bool,
    },
    /// A picture or sound file.
    Media(#[serde(with = "file")] MediaFile),
}

impl Default for Prompt {
    fn default() -> Self {
        Self::Tokens(Vec::new())
    }
}

impl From<Vec<Token>> for Prompt {
    fn from(tokens: Vec<Token>) -> Self {
        Self::Tokens(tokens)
    }
}

/// A shared file as a sequence of bytes.
mod file {
    use super::MediaFile;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(file: &MediaFile, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(file)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MediaFile, D::Error> {
        Vec::deserialize(deserializer).map(MediaFile::new)
    }
}

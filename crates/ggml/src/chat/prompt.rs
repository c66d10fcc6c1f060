//! A conversation turned into a prompt, with all that is needed to read the answer.

use crate::grammar::Grammar;
use crate::sys;
use std::sync::Arc;

/// A conversation turned into a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatPrompt {
    /// The text to tokenize, with control tokens spelled out.
    pub text: String,
    /// The same text in parts: what the template wrote (`false`) and what came from messages (`true`, to be
    /// tokenized without reading control tokens).
    pub parts: Vec<(String, bool)>,
    /// Strings that end the answer, beside the model's own end tokens.
    pub stops: Vec<String>,
    /// What the answer must look like, where tools or a schema were given.
    pub grammar: Option<Grammar>,
    /// Control tokens whose text the parser must see (others need not be rendered).
    pub preserved_tokens: Vec<String>,
    /// Whether the answer may begin with reasoning.
    pub supports_thinking: bool,
    /// How to read the answer.
    pub parser: ChatParserState,
}

/// How to read an answer to one prompt. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ChatParserState {
    pub(crate) raw: Option<Arc<RawParser>>,
    pub(crate) format: i32,
    /// The end of the prompt that the parser must see before the generated text.
    pub(crate) generation_prompt: String,
    /// Texts that never belong into an answer: reasoning tags and preserved tokens.
    pub(crate) tags: Arc<Vec<String>>,
    pub(crate) thinking: Arc<Thinking>,
    /// The generation prompt holds the beginning of the answer, which is not to be shown again.
    pub(crate) continued: bool,
}

impl PartialEq for ChatParserState {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.raw, &other.raw) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            _ => false,
        };
        same && self.format == other.format && self.generation_prompt == other.generation_prompt
    }
}
impl Eq for ChatParserState {}

/// Where reasoning begins and ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thinking {
    pub(crate) start: String,
    pub(crate) ends: Vec<String>,
}

/// llama.cpp's parser of one template's output.
#[derive(Debug)]
pub(crate) struct RawParser(*mut sys::chat_shim_parser);
// SAFETY: an arena of parsing rules that parsing only reads (it has no mutable member; each parse has its own
// context).
unsafe impl Send for RawParser {}
// SAFETY: as above.
unsafe impl Sync for RawParser {}

impl RawParser {
    /// Takes ownership of a parser that the shim handed out; null: the template has none.
    pub(crate) fn own(raw: *mut sys::chat_shim_parser) -> Option<Self> {
        (!raw.is_null()).then_some(Self(raw))
    }

    pub(crate) fn as_ptr(&self) -> *const sys::chat_shim_parser {
        self.0
    }
}

impl Drop for RawParser {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { sys::chat_shim_parser_free(self.0) };
    }
}

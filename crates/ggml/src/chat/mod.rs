//! Chat: from messages to a prompt, and from the text of a model back to content, reasoning and tool calls.
//!
//! Everything is llama.cpp's own `common` code behind the C shims of the sys crate: the Jinja engine, the
//! analysis of a template that yields its parser, the grammars for tools and JSON schemas. The shims catch
//! every C++ exception at the border (`guard` in `shim_support_impl.hpp`); what is called without a shim is
//! listed where it is called.
//!
//! - [`ChatTemplates::apply`]: [`ChatRequest`] → [`ChatPrompt`]
//! - [`ChatParser`]: pieces of text → [`ChatDelta`]s
//! - [`Grammar`](crate::Grammar), [`check_grammar`]: what the answer may look like; the sampler enforces it

mod fault;
mod parser;
mod placeholders;
mod prompt;
mod quiet;
mod raw;
mod request;
mod schema;
mod shim;
mod tagged;
mod templates;
mod translatable;
mod trial;

pub use parser::{ChatDelta, ChatParser, ReasoningSplit};
pub use prompt::{ChatParserState, ChatPrompt};
pub use request::{ChatRequest, ToolChoice};
pub use schema::check_grammar;
pub use templates::{ChatCaps, ChatTemplates};
pub use trial::try_template;

/// Why a conversation could not become a prompt, or a constraint not a grammar. The texts are meant for the
/// client that sent the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The template fails over the messages or tools.
    #[error("the chat template refuses this conversation: {0}")]
    Template(String),
    /// The template refuses the messages or tools, in its own words (`raise_exception`).
    #[error("the chat template refuses this conversation: {0}")]
    Refused(String),
    /// Messages, tools or template arguments are not what they should be.
    #[error("invalid messages or tools: {0}")]
    Input(String),
    /// A JSON schema that cannot be enforced.
    #[error("invalid JSON schema: {0}")]
    Schema(String),
    /// A grammar that cannot be used.
    #[error("invalid grammar: {0}")]
    Grammar(String),
}

impl ChatError {
    /// What llama.cpp says when a template ends early.
    fn of_template(reason: String) -> Self {
        match reason.split_once("Jinja Exception: ") {
            Some((_, words)) => Self::Refused(words.to_owned()),
            None => Self::Template(reason),
        }
    }
}

//! From Go to Jinja.

use super::names::Uses;
use super::{GoTemplateError, jinja, parse};

/// A template in Go's language, in Jinja.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoTemplate {
    /// The same in Jinja.
    pub jinja: String,
    /// Whether it has a place for tools.
    pub takes_tools: bool,
    /// Whether it has a place for thoughts.
    pub shows_thinking: bool,
}

impl GoTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// Bad syntax, and what is not supported.
    pub fn parse(source: &str) -> Result<Self, GoTemplateError> {
        let nodes = parse::parse(source)?;
        let uses = Uses::of(&nodes);
        let jinja = if uses.messages { jinja::of_messages(&nodes) } else { jinja::of_turns(nodes, &uses) };
        Ok(Self { jinja, takes_tools: uses.tools, shows_thinking: uses.thinking })
    }
}

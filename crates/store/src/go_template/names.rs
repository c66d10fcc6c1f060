//! What fields are called in Jinja, and which of them a template uses.

use super::expression::Expression;
use super::parse::Node;

/// A field of a message, a tool or a call.
pub(super) fn key_of(field: &str) -> &str {
    match field {
        "Role" => "role",
        "Content" => "content",
        "Thinking" => "thinking",
        "Images" => "images",
        "ToolCalls" => "tool_calls",
        "ToolName" => "tool_name",
        "ToolCallID" => "tool_call_id",
        "ID" => "id",
        "Index" => "index",
        "Function" => "function",
        "Name" => "name",
        "Arguments" => "arguments",
        "Description" => "description",
        "Parameters" => "parameters",
        "Properties" => "properties",
        "Required" => "required",
        "Type" => "type",
        "Items" => "items",
        "Enum" => "enum",
        other => other,
    }
}

/// Whether a field always is a text, or nothing.
pub(super) fn is_text(field: &str) -> bool {
    let of_messages =
        matches!(field, "Role" | "Content" | "Thinking" | "ToolName" | "ToolCallID" | "Name" | "Description");
    of_messages || matches!(field, "System" | "Prompt" | "Response" | "Suffix" | "ThinkLevel")
}

/// What a template asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uses {
    pub messages: bool,
    pub tools: bool,
    pub thinking: bool,
    pub response: bool,
}

impl Uses {
    pub fn of(nodes: &[Node]) -> Self {
        let mut uses = Self::default();
        uses.see(nodes);
        uses
    }

    fn see(&mut self, nodes: &[Node]) {
        for node in nodes {
            match node {
                Node::Text(_) | Node::Break | Node::Continue => {}
                Node::Print(value) | Node::Set(_, value) => self.see_value(value),
                Node::If { condition: value, then, otherwise }
                | Node::With { value, then, otherwise, .. }
                | Node::Range { over: value, body: then, otherwise, .. } => {
                    self.see_value(value);
                    self.see(then);
                    self.see(otherwise);
                }
            }
        }
    }

    fn see_value(&mut self, value: &Expression) {
        match value {
            Expression::Field(of, name) => {
                match name.as_str() {
                    "Messages" => self.messages = true,
                    "Tools" => self.tools = true,
                    "Thinking" => self.thinking = true,
                    "Response" => self.response = true,
                    _ => {}
                }
                self.see_value(of);
            }
            Expression::Call(_, arguments) => arguments.iter().for_each(|value| self.see_value(value)),
            _ => {}
        }
    }
}

/// Whether a value has the field `.Response`.
pub(super) fn names_response(value: &Expression) -> bool {
    let mut uses = Uses::default();
    uses.see_value(value);
    uses.response
}

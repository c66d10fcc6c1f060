//! Output items: reasoning, a message, function calls, in the order in which they come.

use serde_json::{Value, json};

use super::tools::Called;
use crate::job::Summary;
use crate::openai::random_hex;

/// What an item is, and its text so far.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Reasoning(String),
    Message(String),
    /// With the id by which its result will name it.
    Call(String, Called),
}

/// An item with its id.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub id: String,
    pub kind: Kind,
}

impl Item {
    pub fn new(kind: Kind) -> Self {
        let prefix = match &kind {
            Kind::Reasoning(_) => "rs",
            Kind::Message(_) => "msg",
            Kind::Call(_, Called::Function { .. }) => "fc",
            Kind::Call(_, Called::Custom { .. }) => "ctc",
        };
        Self { id: format!("{prefix}_{}", random_hex(24)), kind }
    }

    /// The item before anything of it was given out.
    pub fn begun(&self) -> Value {
        match &self.kind {
            Kind::Reasoning(_) => json!({
                "id": self.id, "type": "reasoning", "summary": [], "encrypted_content": null, "status": "in_progress",
            }),
            Kind::Message(_) => json!({
                "id": self.id, "type": "message", "status": "in_progress", "role": "assistant", "content": [],
            }),
            Kind::Call(id, called) => self.call(id, called, false),
        }
    }

    /// The whole item. Reasoning is its own "encrypted content": clients send it back, and we keep nothing.
    pub fn whole(&self) -> Value {
        match &self.kind {
            Kind::Reasoning(text) => json!({
                "id": self.id, "type": "reasoning", "summary": [{"type": "summary_text", "text": text}],
                "encrypted_content": text, "status": "completed",
            }),
            Kind::Message(text) => json!({
                "id": self.id, "type": "message", "status": "completed", "role": "assistant",
                "content": [part(text)],
            }),
            Kind::Call(id, called) => self.call(id, called, true),
        }
    }

    fn call(&self, id: &str, called: &Called, whole: bool) -> Value {
        let status = if whole { "completed" } else { "in_progress" };
        let given = |text: &str| if whole { text.to_owned() } else { String::new() };
        let kind = match called {
            Called::Function { .. } => "function_call",
            Called::Custom { .. } => "custom_tool_call",
        };
        let mut item = json!({"id": self.id, "type": kind, "status": status, "call_id": id});
        match called {
            Called::Function { name, namespace, arguments } => {
                item["name"] = json!(name);
                if let Some(namespace) = namespace {
                    item["namespace"] = json!(namespace);
                }
                item["arguments"] = json!(given(arguments));
            }
            Called::Custom { name, input } => {
                item["name"] = json!(name);
                item["input"] = json!(given(input));
            }
        }
        item
    }
}

/// A part of a message.
pub(super) fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

pub(super) fn usage(summary: &Summary) -> Value {
    json!({
        "input_tokens": summary.prompt_tokens,
        "input_tokens_details": {"cached_tokens": summary.reused_tokens},
        "output_tokens": summary.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": summary.reasoning_tokens},
        "total_tokens": summary.prompt_tokens.saturating_add(summary.generated_tokens),
    })
}

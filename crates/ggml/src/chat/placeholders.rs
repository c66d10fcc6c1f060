//! Requests whose schemas are placeholders: llama.cpp then says where in an answer a value of them stands,
//! and llguidance what it may be.

use serde_json::{Map, Value, json};

use super::translatable::MOST_PROPERTIES;
use super::{ChatError, ChatRequest, ToolChoice};
use crate::grammar::Grammar;
use crate::schema::{placeholder_rule, placeholder_schema};
use crate::vocab::Vocab;

/// A request with placeholders, and the schemas that they stand for.
pub(super) struct WithPlaceholders {
    pub request: ChatRequest,
    pub schemas: Vec<String>,
}

impl WithPlaceholders {
    /// `None` where nothing has a schema. A tool whose schema cannot be enforced takes any object, unless it
    /// is strict.
    ///
    /// # Errors
    /// [`ChatError::Schema`]: that of the answer or of a strict tool cannot be enforced.
    pub fn of(request: &ChatRequest, vocab: &Vocab) -> Result<Option<Self>, ChatError> {
        let mut replaced = Self { request: request.clone(), schemas: Vec::new() };
        if let Some(schema) = &request.json_schema {
            vocab.check_schema(schema).map_err(|error| ChatError::Schema(error.to_string()))?;
            replaced.request.json_schema = Some(replaced.placeholder(schema.clone()).to_string());
        }
        if let (Some(tools), false) = (&request.tools_json, request.tool_choice == ToolChoice::None) {
            replaced.request.tools_json = Some(replaced.tools(tools, vocab)?);
        }
        Ok((!replaced.schemas.is_empty()).then_some(replaced))
    }

    /// Whether a grammar has all the placeholders that it is about: those of tools are not in one of an
    /// answer.
    pub fn are_in(&self, grammar: Option<&Grammar>) -> bool {
        let count = if self.request.json_schema.is_some() { 1 } else { self.schemas.len() };
        grammar.is_some_and(|grammar| {
            (0..count).all(|placeholder| grammar.gbnf.contains(&placeholder_rule(placeholder)))
        })
    }

    fn placeholder(&mut self, schema: String) -> Value {
        self.schemas.push(schema);
        placeholder_schema(self.schemas.len() - 1)
    }

    fn tools(&mut self, tools: &str, vocab: &Vocab) -> Result<String, ChatError> {
        let mut tools: Value =
            serde_json::from_str(tools).map_err(|error| ChatError::Input(format!("tools: {error}")))?;
        for function in tools.as_array_mut().into_iter().flatten().filter_map(|tool| tool.get_mut("function"))
        {
            let has_schema = function["parameters"].as_object().is_some_and(|fields| !fields.is_empty());
            if !has_schema {
                continue;
            }
            let mut schema = function["parameters"].to_string();
            match vocab.check_schema(&schema) {
                Err(reason) if function["strict"] == true => {
                    let name = function["name"].as_str().unwrap_or_default();
                    return Err(ChatError::Schema(format!("tool `{name}`: parameters: {reason}")));
                }
                Err(_) => schema = json!({"type": "object"}).to_string(),
                Ok(()) => {}
            }
            function["parameters"] = self.placeholder(schema);
        }
        Ok(tools.to_string())
    }
}

/// Tools with no more of their parameters than names and types, and a bounded number of them: what llama.cpp
/// can always translate.
pub(super) fn types_only(tools: &str) -> Option<String> {
    /// Properties of all tools together.
    const MOST: usize = 2000;
    let mut tools: Value = serde_json::from_str(tools).ok()?;
    let mut left = MOST;
    for function in tools.as_array_mut()?.iter_mut().filter_map(|tool| tool.get_mut("function")) {
        let properties = function["parameters"]["properties"].as_object();
        let plain = |(name, schema): (&String, &Value)| {
            let of_type = schema.get("type").filter(|name| name.is_string());
            (name.clone(), of_type.map_or_else(|| json!({}), |name| json!({ "type": name })))
        };
        let properties = properties.into_iter().flatten().take(left.min(MOST_PROPERTIES));
        let properties: Map<String, Value> = properties.map(plain).collect();
        left -= properties.len();
        function["parameters"] = json!({"type": "object", "properties": properties});
    }
    Some(tools.to_string())
}

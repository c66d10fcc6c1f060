//! Tools of a request, as its model knows them and as the client does.
//!
//! A model knows functions only. A namespace's are `namespace.name` to it; a custom tool, which takes any
//! text, is a function of one string, `input`. Calls go back to the client in its own words.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::Failure;
use crate::job::ToolCall;

/// The one parameter of a custom tool.
const INPUT: &str = "input";

/// Which functions of the model are something else for the client.
#[derive(Clone, Debug, Default)]
pub(super) struct ToolNames {
    /// Namespace and name of a namespace's function.
    namespaced: HashMap<String, (String, String)>,
    custom: HashSet<String>,
}

/// A call in the client's words.
#[derive(Clone, Debug)]
pub(super) enum Called {
    Function { name: String, namespace: Option<String>, arguments: String },
    Custom { name: String, input: String },
}

impl ToolNames {
    pub fn of(tools: &[Value]) -> Self {
        let mut names = Self::default();
        for tool in tools {
            let name = tool["name"].as_str().unwrap_or_default();
            match tool["type"].as_str() {
                Some("custom") => drop(names.custom.insert(name.to_owned())),
                Some("namespace") => {
                    for inner in members(tool) {
                        let inner = inner["name"].as_str().unwrap_or_default();
                        let short = inner.strip_prefix(&format!("{name}.")).unwrap_or(inner);
                        names.namespaced.insert(joined(name, inner), (name.to_owned(), short.to_owned()));
                    }
                }
                _ => {}
            }
        }
        names
    }

    pub fn called(&self, call: &ToolCall) -> Called {
        if self.custom.contains(&call.name) {
            let input = match &call.arguments[INPUT] {
                Value::String(text) => text.clone(),
                _ => call.arguments.to_string(),
            };
            return Called::Custom { name: call.name.clone(), input };
        }
        let (namespace, name) = match self.namespaced.get(&call.name) {
            Some((namespace, name)) => (Some(namespace.clone()), name.clone()),
            None => (None, call.name.clone()),
        };
        Called::Function { name, namespace, arguments: call.arguments.to_string() }
    }
}

/// What a model calls a function of a namespace.
pub(super) fn joined(namespace: &str, name: &str) -> String {
    let prefix = format!("{namespace}.");
    if namespace.is_empty() || name.starts_with(&prefix) { name.to_owned() } else { prefix + name }
}

/// Arguments of a custom tool's function.
pub(super) fn custom_arguments(input: &str) -> Value {
    json!({ INPUT: input })
}

fn members(namespace: &Value) -> impl Iterator<Item = &Value> {
    namespace["tools"].as_array().into_iter().flatten()
}

/// Functions in the shape of chat; tools that other servers run are left out.
///
/// # Errors
/// 400 for a function without a name.
pub(super) fn functions(tools: &[Value]) -> Result<Vec<Value>, Failure> {
    let mut out = Vec::with_capacity(tools.len());
    for tool in tools {
        match tool["type"].as_str() {
            Some("function") => out.push(function(tool, "", None)?),
            Some("custom") => {
                let text =
                    json!({"type": "object", "properties": {INPUT: {"type": "string"}}, "required": [INPUT]});
                out.push(function(tool, "", Some(text))?);
            }
            Some("namespace") => {
                let namespace = tool["name"].as_str().unwrap_or_default();
                for inner in members(tool) {
                    out.push(function(inner, namespace, None)?);
                }
            }
            _ => {}
        }
    }
    Ok(out)
}

fn function(tool: &Value, namespace: &str, parameters: Option<Value>) -> Result<Value, Failure> {
    let name = tool["name"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Failure::bad_request("a function needs a name"))?;
    let given = Some(&tool["parameters"]).filter(|parameters| parameters.is_object()).cloned();
    let parameters = parameters.or(given).unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let mut function = json!({
        "name": joined(namespace, name),
        "description": tool["description"].as_str().unwrap_or_default(),
        "parameters": parameters,
    });
    if tool["strict"] == true {
        function["strict"] = json!(true);
    }
    Ok(json!({"type": "function", "function": function}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_in_joined_and_come_out_split() {
        let tools = [
            json!({"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "g"}, {"name": "ns.h"}]}),
            json!({"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark"}}),
            json!({"type": "function", "name": "f"}),
            json!({"type": "web_search"}),
            json!({}),
        ];
        let functions = functions(&tools).unwrap();
        let known: Vec<_> = functions.iter().map(|tool| tool["function"]["name"].clone()).collect();
        assert_eq!(known, ["ns.g", "ns.h", "apply_patch", "f"].map(Value::from));
        let names = ToolNames::of(&tools);
        let called = |name: &str, arguments: Value| {
            names.called(&ToolCall { index: 0, id: "c".to_owned(), name: name.to_owned(), arguments })
        };
        for (known, wanted) in [("ns.g", "g"), ("ns.h", "h")] {
            let Called::Function { name, namespace, arguments } = called(known, json!({"a": 1})) else {
                panic!()
            };
            assert_eq!(
                (name.as_str(), namespace.as_deref(), arguments.as_str()),
                (wanted, Some("ns"), "{\"a\":1}")
            );
        }
        let Called::Function { namespace: None, .. } = called("f", json!({})) else { panic!() };
        let Called::Custom { input, .. } = called("apply_patch", json!({"input": "*** Begin"})) else {
            panic!()
        };
        assert_eq!(input, "*** Begin");
    }
}

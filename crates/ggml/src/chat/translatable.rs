//! Whether llama.cpp can translate the schemas of a request into a grammar in a moment. In some places
//! (alternatives, the types of values) it follows references each time it meets one, so that a few
//! definitions of two references each are more work than there is time for; a client's tools kept the process
//! of a model busy until it was ended.
//!
//! Pure: counts, and translates nothing.

use serde_json::Value;
use std::collections::HashMap;

use super::ChatRequest;

/// Most parts of all schemas together, references followed.
const MOST_PARTS: u64 = 20_000;
/// Most properties of one object: translating optional ones takes time with the cube of their number.
pub(super) const MOST_PROPERTIES: usize = 128;
/// Deepest nesting of JSON, references followed.
const DEEPEST: usize = 64;

/// Whether all schemas of a request are small enough, those of its tools together.
pub(super) fn may_translate(request: &ChatRequest) -> bool {
    request.tools_json.as_deref().is_none_or(are_translatable) && may_translate_format(request)
}

/// Whether the schema of its answer is.
pub(super) fn may_translate_format(request: &ChatRequest) -> bool {
    let schema = request.json_schema.as_deref().map(serde_json::from_str::<Value>);
    schema.is_none_or(|schema| schema.is_ok_and(|schema| parts_of(&schema) <= MOST_PARTS))
}

/// `tools`: a JSON array in OpenAI's shape.
fn are_translatable(tools: &str) -> bool {
    let Ok(tools) = serde_json::from_str::<Value>(tools) else { return false };
    let schemas = tools.as_array().into_iter().flatten().map(|tool| &tool["function"]["parameters"]);
    schemas.map(parts_of).fold(0, u64::saturating_add) <= MOST_PARTS
}

fn parts_of(schema: &Value) -> u64 {
    Counter { root: schema, of_references: HashMap::new() }.parts(schema, 0)
}

/// Counts the parts of one schema.
struct Counter<'a> {
    root: &'a Value,
    /// Parts of what references lead to; `None` while they are counted, in a loop.
    of_references: HashMap<&'a str, Option<u64>>,
}

impl<'a> Counter<'a> {
    fn parts(&mut self, schema: &'a Value, depth: usize) -> u64 {
        if depth > DEEPEST {
            return u64::MAX;
        }
        match schema {
            Value::Array(all) => {
                all.iter().fold(1, |sum: u64, part| sum.saturating_add(self.parts(part, depth + 1)))
            }
            Value::Object(fields) => fields.iter().fold(1, |sum: u64, (name, part)| {
                let parts = match (name.as_str(), part) {
                    ("properties", Value::Object(all)) if all.len() > MOST_PROPERTIES => u64::MAX,
                    // Names of properties, whatever they are.
                    ("properties" | "patternProperties", Value::Object(all)) => {
                        all.values().fold(1, |sum: u64, part| sum.saturating_add(self.parts(part, depth + 1)))
                    }
                    ("$ref", Value::String(reference)) => self.parts_behind(reference, depth + 1),
                    // What nobody refers to is not translated.
                    ("$defs" | "definitions", _) => 0,
                    _ => self.parts(part, depth + 1),
                };
                sum.saturating_add(parts)
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
        }
    }

    fn parts_behind(&mut self, reference: &'a str, depth: usize) -> u64 {
        if let Some(known) = self.of_references.get(reference) {
            // A loop is one rule.
            return known.unwrap_or(1);
        }
        let root = self.root;
        let Some(target) = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) else {
            return 1;
        };
        self.of_references.insert(reference, None);
        let parts = self.parts(target, depth);
        self.of_references.insert(reference, Some(parts));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn tool(schema: &Value) -> String {
        json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]).to_string()
    }

    fn chain(links: usize, link: impl Fn(Value) -> Value) -> Value {
        let next = |at: usize| json!({"$ref": format!("#/$defs/a{}", at + 1)});
        let last = (format!("a{links}"), json!({"type": "string"}));
        let all: Map<String, Value> =
            (0..links).map(|at| (format!("a{at}"), link(next(at)))).chain([last]).collect();
        json!({"type": "object", "properties": {"q": {"$ref": "#/$defs/a0"}}, "$defs": all})
    }

    #[test]
    fn tools_of_agents_are_translated_and_schemas_that_explode_are_not() {
        let properties = |count: usize| -> Map<String, Value> {
            (0..count).map(|at| (format!("p{at}"), json!({"type": "string", "description": "x"}))).collect()
        };
        let nested = |levels: usize| (0..levels).fold(json!({}), |inner, _| json!({"items": inner}));
        for (schema, fits) in [
            (json!({"type": "object", "properties": properties(100)}), true),
            (json!({"type": "object", "properties": properties(MOST_PROPERTIES + 1)}), false),
            (json!({"enum": (0..10_000).collect::<Vec<_>>()}), true),
            (json!({"enum": (0..100_000).collect::<Vec<_>>()}), false),
            (nested(20), true),
            (nested(100), false),
            (chain(12, |next| json!({"items": next})), true),
            (chain(12, |next| json!({"anyOf": [next, next]})), false),
            (chain(10_000, |next| json!({"items": next})), false),
            (
                json!({"properties": {"a": {"$ref": "#"}, "b": {"anyOf": [{"$ref": "#"}, {"$ref": "#/properties/b"}]}}}),
                true,
            ),
            (json!({"$ref": "#/nowhere"}), true),
            // Properties with names of keywords.
            (json!({"properties": {"definitions": {"properties": properties(MOST_PROPERTIES + 1)}}}), false),
            (json!({"patternProperties": {"$defs": {"enum": (0..100_000).collect::<Vec<_>>()}}}), false),
            (json!({"properties": {"properties": {"properties": properties(20)}}}), true),
        ] {
            assert_eq!(are_translatable(&tool(&schema)), fits, "{:.80}", schema.to_string());
            let asked = ChatRequest { json_schema: Some(schema.to_string()), ..ChatRequest::new("[]") };
            assert_eq!(may_translate(&asked), fits, "{:.80}", schema.to_string());
        }
        assert!(!are_translatable("no JSON"));
    }
}

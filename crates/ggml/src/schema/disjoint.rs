//! Whether alternatives exclude each other, as far as that is easy to see: by type, by constants, by a
//! property that one must have and that is another one in the other.

use serde_json::{Map, Value};

/// Deepest comparison of two alternatives.
const DEEPEST: usize = 6;

/// Alternatives of one schema.
#[derive(Clone, Copy)]
pub(super) struct Alternatives<'a> {
    /// The whole schema, to which references lead.
    pub root: &'a Value,
}

impl Alternatives<'_> {
    /// Whether no value fits both.
    pub fn are_disjoint(self, one: &Value, other: &Value) -> bool {
        self.disjoint(one, other, DEEPEST)
    }

    fn disjoint(self, one: &Value, other: &Value, depth: usize) -> bool {
        let (Some(one), Some(other)) = (self.facts(one, depth), self.facts(other, depth)) else {
            return false;
        };
        if let (Some(left), Some(right)) = (&one.values, &other.values)
            && left.iter().all(|value| !right.contains(value))
        {
            return true;
        }
        if let (Some(left), Some(right)) = (&one.types, &other.types)
            && left.iter().all(|name| !right.contains(name))
        {
            return true;
        }
        let are_objects = [&one.types, &other.types]
            .into_iter()
            .any(|types| types.as_ref().is_some_and(|types| types.iter().all(|name| name == "object")));
        depth > 0
            && are_objects
            && (self.apart_by_name(&one, &other, depth) || self.apart_by_name(&other, &one, depth))
    }

    /// Whether a property that `one` must have is another one in `other`, or is not allowed there.
    fn apart_by_name(self, one: &Facts, other: &Facts, depth: usize) -> bool {
        one.required.iter().any(|name| match (one.properties.get(name), other.properties.get(name)) {
            (Some(left), Some(right)) => self.disjoint(left, right, depth - 1),
            (_, None) => other.is_closed,
            (None, Some(_)) => false,
        })
    }

    /// What is easy to see of a schema; `None`: nothing.
    fn facts(self, schema: &Value, depth: usize) -> Option<Facts> {
        let fields = schema.as_object()?;
        let mut facts = match fields.get("$ref").and_then(Value::as_str) {
            Some(reference) if depth > 0 => {
                let target = self.root.pointer(reference.strip_prefix('#')?)?;
                self.facts(target, depth - 1)?
            }
            Some(_) => return None,
            None => Facts::default(),
        };
        let types = match fields.get("type") {
            Some(Value::String(name)) => Some(vec![name.clone()]),
            Some(Value::Array(names)) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        facts.types = types.map(with_integers).or(facts.types);
        let values = fields.get("const").map(|value| vec![value.clone()]);
        let values = values.or_else(|| fields.get("enum")?.as_array().cloned());
        if facts.types.is_none() && facts.values.is_none() {
            facts.types = values.as_ref().map(|values| values.iter().map(type_name).collect());
        }
        facts.values = values.or(facts.values);
        if let Some(Value::Array(names)) = fields.get("required") {
            facts.required.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        if let Some(Value::Object(all)) = fields.get("properties") {
            facts.properties.extend(all.clone());
        }
        let closed = fields.get("additionalProperties") == Some(&Value::Bool(false));
        facts.is_closed |= closed && !fields.contains_key("patternProperties");
        Some(facts)
    }
}

/// What is easy to see of a schema.
#[derive(Default)]
struct Facts {
    types: Option<Vec<String>>,
    values: Option<Vec<Value>>,
    required: Vec<String>,
    properties: Map<String, Value>,
    /// It has no other properties.
    is_closed: bool,
}

/// Integers are numbers too.
fn with_integers(mut types: Vec<String>) -> Vec<String> {
    if types.iter().any(|name| name == "number") {
        types.push("integer".to_owned());
    }
    types
}

fn type_name(value: &Value) -> String {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    name.to_owned()
}

//! Whether alternatives exclude each other, as far as that is easy to see: by type, by constants, by a
//! property that one must have and that is another one in the other.

use serde_json::{Map, Value};
use std::cell::Cell;

/// Deepest comparison of two alternatives.
const DEEPEST: usize = 6;

/// Comparisons for one schema, about a second of them: alternatives that refer to each other, or list many
/// values, would take years.
pub(super) const MOST_COMPARED: u64 = 5_000_000;

/// Alternatives of one schema.
#[derive(Clone, Copy)]
pub(super) struct Alternatives<'a> {
    /// The whole schema, to which references lead.
    pub root: &'a Value,
    /// Comparisons that are left. Without any, nothing is known to be disjoint.
    pub left: &'a Cell<u64>,
}

impl<'a> Alternatives<'a> {
    /// Whether no value fits both.
    pub fn are_disjoint(self, one: &'a Value, other: &'a Value) -> bool {
        self.disjoint(one, other, DEEPEST)
    }

    /// Whether so many comparisons may be made.
    fn may_compare(self, count: usize) -> bool {
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    fn disjoint(self, one: &'a Value, other: &'a Value, depth: usize) -> bool {
        if !self.may_compare(1) {
            return false;
        }
        let (Some(one), Some(other)) = (self.facts(one, depth), self.facts(other, depth)) else {
            return false;
        };
        if let (Some(left), Some(right)) = (&one.values, &other.values)
            && self.may_compare((left.len() * right.len()).saturating_sub(1))
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
            .any(|types| types.as_ref().is_some_and(|types| types.iter().all(|name| *name == "object")));
        depth > 0
            && are_objects
            && (self.apart_by_name(&one, &other, depth) || self.apart_by_name(&other, &one, depth))
    }

    /// Whether a property that `one` must have is another one in `other`, or is not allowed there.
    fn apart_by_name(self, one: &Facts<'a>, other: &Facts<'a>, depth: usize) -> bool {
        one.required.iter().any(|name| match (one.property(name), other.property(name)) {
            (Some(left), Some(right)) => self.disjoint(left, right, depth - 1),
            (_, None) => other.is_closed,
            (None, Some(_)) => false,
        })
    }

    /// What is easy to see of a schema; `None`: nothing.
    fn facts(self, schema: &'a Value, depth: usize) -> Option<Facts<'a>> {
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
            Some(Value::String(name)) => Some(vec![name.as_str()]),
            Some(Value::Array(names)) => names.iter().map(Value::as_str).collect(),
            _ => None,
        };
        facts.types = types.map(with_integers).or(facts.types);
        let values = fields.get("const").map(std::slice::from_ref);
        let values = values.or_else(|| fields.get("enum")?.as_array().map(Vec::as_slice));
        if facts.types.is_none() && facts.values.is_none() {
            facts.types = values.map(|values| values.iter().map(type_name).collect());
        }
        facts.values = values.or(facts.values);
        if let Some(Value::Array(names)) = fields.get("required") {
            facts.required.extend(names.iter().filter_map(Value::as_str));
        }
        facts.properties.extend(fields.get("properties").and_then(Value::as_object));
        let closed = fields.get("additionalProperties") == Some(&Value::Bool(false));
        facts.is_closed |= closed && !fields.contains_key("patternProperties");
        Some(facts)
    }
}

/// What is easy to see of a schema.
#[derive(Default)]
struct Facts<'a> {
    types: Option<Vec<&'a str>>,
    values: Option<&'a [Value]>,
    required: Vec<&'a str>,
    /// Those of references first.
    properties: Vec<&'a Map<String, Value>>,
    /// It has no other properties.
    is_closed: bool,
}

impl<'a> Facts<'a> {
    fn property(&self, name: &str) -> Option<&'a Value> {
        self.properties.iter().rev().find_map(|all| all.get(name))
    }
}

/// Integers are numbers too.
fn with_integers(mut types: Vec<&str>) -> Vec<&str> {
    if types.contains(&"number") {
        types.push("integer");
    }
    types
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

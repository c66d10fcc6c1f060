//! `not`, where what it leaves can be said otherwise: nothing, everything, other types, an object without a
//! property, other values of an enumeration, and combinations of these. Any other stays, and is refused.

use serde_json::{Map, Value, json};

use super::keywords::is_remark;

/// All types; whole numbers are numbers.
const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

/// Says `not` otherwise where that is possible. False: nothing fits the schema.
pub(super) fn without_not(fields: &mut Map<String, Value>) -> bool {
    let Some(rule) = fields.get("not").cloned() else { return true };
    let rule = match rule {
        Value::Bool(truth) => {
            fields.remove("not");
            return !truth;
        }
        Value::Object(rule) => rule,
        _ => return true,
    };
    let says: Vec<&str> = rule.keys().map(String::as_str).filter(|name| !is_remark(name)).collect();
    let left = match says.as_slice() {
        [] => Some(false),
        ["type"] => other_types(fields, &rule["type"]),
        ["required"] => without_property(fields, &rule["required"], true),
        ["required", "type"] | ["type", "required"] if rule["type"] == "object" => {
            without_property(fields, &rule["required"], false)
        }
        ["enum"] => other_values(fields, rule["enum"].as_array().map_or(&[], Vec::as_slice)),
        ["const"] => other_values(fields, std::slice::from_ref(&rule["const"])),
        ["anyOf"] => also(fields, negated(&rule["anyOf"])),
        ["allOf"] => {
            negated(&rule["allOf"]).and_then(|parts| also(fields, Some(vec![json!({"anyOf": parts})])))
        }
        ["not"] => also(fields, Some(vec![rule["not"].clone()])),
        _ => None,
    };
    if left.is_some() {
        fields.remove("not");
    }
    left.unwrap_or(true)
}

/// Only types that are not these.
fn other_types(fields: &mut Map<String, Value>, excluded: &Value) -> Option<bool> {
    let names = |value: &Value| -> Vec<String> {
        let one = value.as_str().map(str::to_owned);
        let many = value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        one.into_iter().chain(many).collect()
    };
    let excluded = names(excluded);
    let has = |name: &str| excluded.iter().any(|excluded| excluded == name);
    let asked = fields.get("type").map(names);
    let asked = asked.unwrap_or_else(|| TYPES.map(str::to_owned).to_vec());
    // Numbers that are not whole have no type of their own.
    if has("integer") && !has("number") && asked.iter().any(|name| name == "number") {
        return None;
    }
    let is_left = |name: &String| !(has(name) || name == "integer" && has("number"));
    let left: Vec<String> = asked.into_iter().filter(is_left).collect();
    let any = !left.is_empty();
    fields.insert("type".to_owned(), json!(left));
    Some(any)
}

/// An object without this property; `only`: and nothing but objects.
fn without_property(fields: &mut Map<String, Value>, required: &Value, only: bool) -> Option<bool> {
    let [Value::String(name)] = required.as_array()?.as_slice() else { return None };
    if only {
        let takes = |kinds: &Value| {
            *kinds == "object" || kinds.as_array().is_some_and(|all| all.contains(&json!("object")))
        };
        if !fields.get("type").is_none_or(takes) {
            return Some(false);
        }
        fields.insert("type".to_owned(), json!("object"));
    }
    let listed = fields.get("properties").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
    if !listed {
        // It is the only one that is listed, which does not mean that there are no others.
        fields.entry("additionalProperties").or_insert(Value::Bool(true));
    }
    let Value::Object(all) = fields.entry("properties").or_insert_with(|| json!({})) else { return None };
    all.insert(name.clone(), Value::Bool(false));
    Some(true)
}

/// The other values of an enumeration.
fn other_values(fields: &mut Map<String, Value>, excluded: &[Value]) -> Option<bool> {
    let all = match (fields.get("enum"), fields.get("const")) {
        (Some(Value::Array(all)), None) => all.clone(),
        (None, Some(value)) => vec![value.clone()],
        _ => return None,
    };
    // `1` and `1.0` are the same value, spelled in two ways.
    let is_same = |a: &Value, b: &Value| a == b || a.is_number() && a.as_f64() == b.as_f64();
    let left: Vec<Value> =
        all.into_iter().filter(|value| !excluded.iter().any(|other| is_same(value, other))).collect();
    let any = !left.is_empty();
    fields.remove("const");
    fields.insert("enum".to_owned(), Value::Array(left));
    Some(any)
}

fn negated(parts: &Value) -> Option<Vec<Value>> {
    Some(parts.as_array()?.iter().map(|part| json!({ "not": part })).collect())
}

/// All of these too.
fn also(fields: &mut Map<String, Value>, parts: Option<Vec<Value>>) -> Option<bool> {
    let parts = parts?;
    let Value::Array(all) = fields.entry("allOf").or_insert_with(|| json!([])) else { return None };
    all.extend(parts);
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(schema: Value) -> Option<Value> {
        let Value::Object(mut fields) = schema else { panic!("a schema is an object") };
        without_not(&mut fields).then_some(Value::Object(fields))
    }

    #[test]
    fn what_not_leaves_is_said_otherwise() {
        let object = json!({"type": "object", "properties": {"a": false}, "additionalProperties": true});
        for (schema, expected) in [
            (json!({"not": {}}), None),
            (json!({"not": true}), None),
            (json!({"not": {"description": "x"}}), None),
            (json!({"not": false}), Some(json!({}))),
            (
                json!({"not": {"type": ["array", "object", "null"]}}),
                Some(json!({"type": ["boolean", "number", "string"]})),
            ),
            (
                json!({"type": ["integer", "string"], "not": {"type": "number"}}),
                Some(json!({"type": ["string"]})),
            ),
            (json!({"type": "object", "not": {"type": "object"}}), None),
            (json!({"not": {"required": ["a"]}}), Some(object)),
            (json!({"type": "string", "not": {"required": ["a"]}}), None),
            (
                json!({"properties": {"b": {}}, "not": {"type": "object", "required": ["a"]}}),
                Some(json!({"properties": {"b": {}, "a": false}})),
            ),
            (json!({"enum": [1, "x"], "not": {"const": 1.0}}), Some(json!({"enum": ["x"]}))),
            (json!({"const": 1, "not": {"enum": [1, 2]}}), None),
            (json!({"not": {"anyOf": [{"a": 1}]}}), Some(json!({"allOf": [{"not": {"a": 1}}]}))),
            (json!({"not": {"allOf": [{"a": 1}]}}), Some(json!({"allOf": [{"anyOf": [{"not": {"a": 1}}]}]}))),
            (json!({"not": {"not": {"a": 1}}}), Some(json!({"allOf": [{"a": 1}]}))),
        ] {
            assert_eq!(said(schema.clone()), expected, "{schema}");
        }
    }

    #[test]
    fn what_cannot_be_said_otherwise_stays() {
        for schema in [
            json!({"not": {"type": "integer"}}),
            json!({"not": {"pattern": "x"}}),
            json!({"not": {"const": 1}}),
            json!({"not": {"required": ["a", "b"]}}),
            json!({"not": {"type": "object", "properties": {"a": {}}}}),
        ] {
            assert_eq!(said(schema.clone()), Some(schema.clone()), "{schema}");
        }
    }
}

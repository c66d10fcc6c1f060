//! Keywords of one schema that nobody enforces, and bounds that contradict each other.

use serde_json::{Map, Value};

use super::error::SchemaError;

/// Keywords that assert something and cannot be enforced while a value is written.
const NOT_ENFORCED: [&str; 16] = [
    "not",
    "if",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
    "then",
    "else",
];

/// Lower and upper bounds that go together.
const BOUNDS: [(&str, &str); 4] = [
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
];

/// Refuses what cannot be enforced in one schema, its parts aside.
pub(super) fn check(fields: &Map<String, Value>, place: &str) -> Result<(), SchemaError> {
    if let Some(name) = NOT_ENFORCED.iter().find(|name| fields.contains_key(**name)) {
        return Err(SchemaError::at(place, format!("`{name}` cannot be enforced")));
    }
    for (low, high) in BOUNDS {
        let number = |name: &str| fields.get(name).and_then(Value::as_f64);
        if let (Some(least), Some(most)) = (number(low), number(high))
            && least > most
        {
            return Err(SchemaError::at(place, format!("{low} {least} is above {high} {most}")));
        }
    }
    let values = fields.get("enum").and_then(Value::as_array).into_iter().flatten();
    match values.chain(fields.get("const")).find(|value| !is_exact(value)) {
        Some(value) => Err(SchemaError::at(place, format!("{value} is beyond 2^53 and cannot be enforced"))),
        None => Ok(()),
    }
}

/// Whether all numbers in a value are what they are as floating-point numbers, too.
fn is_exact(value: &Value) -> bool {
    const EXACT: u64 = 1 << 53;
    match value {
        Value::Number(number) => {
            let magnitude = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            magnitude.is_none_or(|magnitude| magnitude <= EXACT)
        }
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Whether a keyword is there for people.
pub(super) fn is_remark(name: &str) -> bool {
    matches!(
        name,
        "title" | "description" | "default" | "examples" | "$comment" | "deprecated" | "discriminator"
    ) || matches!(name, "$defs" | "definitions" | "$schema" | "$id" | "readOnly" | "writeOnly")
}

//! Where in a schema something is: paths, and the search for the part that is refused.

use serde_json::{Map, Value};

/// Parts of a schema that are schemas themselves, with their paths.
pub(super) fn parts(fields: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("properties" | "patternProperties", Value::Object(all)) => {
                found.extend(all.iter().map(|(key, part)| (format!("{name}.{key}"), part)));
            }
            ("prefixItems" | "items" | "anyOf" | "oneOf" | "allOf", Value::Array(all)) => {
                found.extend(all.iter().enumerate().map(|(at, part)| (format!("{name}[{at}]"), part)));
            }
            ("items" | "additionalItems" | "additionalProperties", part) => found.push((name.clone(), part)),
            _ => {}
        }
    }
    found
}

/// The path of the deepest part that does not compile by itself; empty: none.
pub(super) fn first_fault(schema: &Value, compiles: impl Fn(&Value) -> bool) -> String {
    /// Parts that are tried: a large schema is not compiled for minutes to say where it is wrong.
    const MOST_TRIED: usize = 64;
    let named = ["$defs", "definitions"];
    let mut tried = 0;
    let mut place = String::new();
    let mut at = schema;
    loop {
        let faulty = at.as_object().into_iter().flat_map(parts).find(|(_, part)| {
            tried += 1;
            let mut part = (*part).clone();
            if let Some(fields) = part.as_object_mut() {
                let definitions = named.iter().filter_map(|name| Some((*name, schema.get(*name)?)));
                definitions.for_each(|(name, all)| drop(fields.insert(name.to_owned(), all.clone())));
            }
            tried <= MOST_TRIED && !compiles(&part)
        });
        let Some((name, part)) = faulty else { return place };
        place = joined(&place, &name);
        at = part;
    }
}

/// A path and the name of a part.
pub(super) fn joined(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

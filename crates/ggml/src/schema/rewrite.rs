//! Keywords said in others that llguidance knows, and objects closed that list what they have.

use serde_json::{Map, Value, json};
use std::cell::Cell;

use super::disjoint::{Alternatives, MOST_COMPARED};
use super::error::SchemaError;
use super::faults::joined;
use super::keywords::{check, is_remark};
use super::negations::without_not;
use super::patterns::with_exact_classes;

/// What objects may have beside the properties that they list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extras {
    /// What JSON Schema says: anything.
    #[cfg_attr(not(test), expect(dead_code, reason = "the suites are about schemas as they are written"))]
    AsWritten,
    /// Nothing, unless `additionalProperties` asks for it: small models otherwise never end an object. Ollama
    /// and llama.cpp do the same.
    OnlyWhereAskedFor,
}

/// Formats that are enforced; any other is a remark, as the standard has it.
pub(super) const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// Keywords that say something of the value where they stand, beside its type and its own properties.
const COMBINING: [&str; 7] = ["anyOf", "oneOf", "allOf", "$ref", "not", "if", "propertyNames"];

/// A schema as llguidance is to have it.
///
/// # Errors
/// [`SchemaError`]: a keyword that nobody enforces, or bounds that contradict each other.
pub(super) fn enforced(schema: &Value, extras: Extras) -> Result<Value, SchemaError> {
    match schema {
        Value::Bool(true) => Ok(Value::Object(Map::new())),
        Value::Bool(false) => Err(SchemaError::at_root("nothing fits `false`")),
        Value::Object(_) => Rewriter::new(schema, extras).rewritten(schema, ""),
        _ => Err(SchemaError::at_root("it is not a JSON object")),
    }
}

/// Rewrites the parts of one schema.
pub(super) struct Rewriter<'a> {
    root: &'a Value,
    closes: bool,
    /// References are all that counts where they stand, as up to draft 7.
    references_alone: bool,
    /// Comparisons of alternatives that are left.
    left: Cell<u64>,
}

impl<'a> Rewriter<'a> {
    pub fn new(root: &'a Value, extras: Extras) -> Self {
        let closes = extras == Extras::OnlyWhereAskedFor && !merges_references(root, false);
        let draft = root["$schema"].as_str().unwrap_or_default();
        let references_alone = draft.contains("draft-07") || draft.contains("draft-06");
        Self { root, closes, references_alone, left: Cell::new(MOST_COMPARED) }
    }

    /// A schema that allows the same or less, in llguidance's words.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub fn rewritten(&self, schema: &Value, place: &str) -> Result<Value, SchemaError> {
        self.part(schema, place, true)
    }

    /// `alone`: nothing else describes the same value.
    fn part(&self, schema: &Value, place: &str, alone: bool) -> Result<Value, SchemaError> {
        let Value::Object(fields) = schema else { return Ok(schema.clone()) };
        let mut fields = fields.clone();
        if self.references_alone && fields.contains_key("$ref") {
            fields.retain(|name, _| matches!(name.as_str(), "$ref" | "$schema" | "definitions"));
        }
        without_remarks(&mut fields, place.is_empty());
        if !without_not(&mut fields) {
            return match place {
                "" => Err(SchemaError::at_root("nothing fits its `not`")),
                _ => Ok(Value::Bool(false)),
            };
        }
        with_known_names(&mut fields);
        check(&fields, place)?;
        with_exact_bounds(&mut fields);
        with_whole_formats(&mut fields);
        with_exact_classes(&mut fields);
        self.one_of(&mut fields);
        if self.closes && alone && lists_all(&fields) {
            fields.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        let combines = |name: &str| matches!(name, "anyOf" | "oneOf" | "allOf");
        let says_more = fields.keys().any(|name| !combines(name) && !is_remark(name));
        let combined = fields.keys().any(|name| combines(name) || name == "$ref");
        let names: Vec<String> = fields.keys().cloned().collect();
        for name in names {
            let place = joined(place, &name);
            let alone = match name.as_str() {
                "$defs" | "definitions" => true,
                "allOf" => false,
                "anyOf" | "oneOf" => alone && !says_more,
                _ => alone && !combined,
            };
            if let Some(value) = fields.get_mut(&name) {
                self.keyword(&name, value, &place, alone)?;
            }
        }
        Ok(Value::Object(fields))
    }

    fn keyword(&self, name: &str, value: &mut Value, place: &str, alone: bool) -> Result<(), SchemaError> {
        match (name, value) {
            ("properties" | "patternProperties", Value::Object(all)) => {
                for (key, part) in all.iter_mut() {
                    *part = self.part(part, &joined(place, key), alone)?;
                }
            }
            ("$defs" | "definitions", Value::Object(all)) => {
                // What is wrong in one that nobody uses does not matter; llguidance sees the others.
                for (key, part) in all.iter_mut() {
                    if let Ok(rewritten) = self.part(part, &joined(place, key), alone) {
                        *part = rewritten;
                    }
                }
            }
            ("prefixItems" | "items" | "anyOf" | "oneOf" | "allOf", Value::Array(all)) => {
                for (at, part) in all.iter_mut().enumerate() {
                    *part = self.part(part, &format!("{place}[{at}]"), alone)?;
                }
            }
            ("items" | "additionalItems" | "additionalProperties", part) => {
                *part = self.part(part, place, alone)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Alternatives of which no two fit the same value are plain alternatives. Those that a `discriminator`
    /// tells apart must have the property that it names.
    fn one_of(&self, fields: &mut Map<String, Value>) {
        let Some(Value::Array(all)) = fields.get("oneOf") else { return };
        let named = fields.get("discriminator").and_then(|named| named["propertyName"].as_str());
        let mut all = all.clone();
        if let Some(named) = named {
            for part in all.iter_mut().filter_map(Value::as_object_mut) {
                if let Value::Array(names) = part.entry("required").or_insert_with(|| json!([])) {
                    names.push(named.into());
                }
            }
        }
        let alternatives = Alternatives { root: self.root, left: &self.left };
        let apart = |at: usize| all[..at].iter().all(|other| alternatives.are_disjoint(other, &all[at]));
        if !(0..all.len()).all(apart) {
            return;
        }
        fields.remove("oneOf");
        let any_of = json!({ "anyOf": all });
        if !fields.contains_key("anyOf") {
            fields.insert("anyOf".to_owned(), any_of["anyOf"].clone());
        } else if let Value::Array(parts) = fields.entry("allOf").or_insert_with(|| json!([])) {
            parts.push(any_of);
        }
    }
}

/// Without keywords that say nothing of a value, but would be refused.
fn without_remarks(fields: &mut Map<String, Value>, is_root: bool) {
    let says_nothing = |value: &Value| match value {
        Value::Bool(true) => true,
        Value::Object(all) => all.is_empty(),
        _ => false,
    };
    let (has_if, has_then) =
        (fields.contains_key("if"), fields.contains_key("then") || fields.contains_key("else"));
    let contains =
        fields.get("minContains").and_then(Value::as_u64) != Some(0) && fields.contains_key("contains");
    let has_max_contains = fields.contains_key("maxContains");
    fields.retain(|name, value| match name.as_str() {
        "format" => value.as_str().is_some_and(|format| FORMATS.contains(&format)),
        "uniqueItems" => *value != Value::Bool(false),
        "dependentRequired"
        | "dependentSchemas"
        | "dependencies"
        | "unevaluatedItems"
        | "unevaluatedProperties" => !says_nothing(value),
        "propertyNames" => !says_nothing(value) && *value != json!({"type": "string"}),
        "if" => has_then,
        "then" | "else" => has_if,
        "contains" => contains || has_max_contains,
        "minContains" | "maxContains" => contains || has_max_contains && name == "maxContains",
        "x-guidance" => false,
        "$schema" => is_root && value.as_str().is_some_and(is_known_draft),
        _ => true,
    });
}

fn is_known_draft(name: &str) -> bool {
    let year =
        ["https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2019-09/schema"];
    let number = ["http://json-schema.org/draft-07/schema", "http://json-schema.org/draft-06/schema"];
    let name = name.trim_end_matches('#');
    year.contains(&name) || number.contains(&name)
}

/// Rules for names of properties, and for those that nothing else describes, in other keywords.
fn with_known_names(fields: &mut Map<String, Value>) {
    let has_plain_properties =
        !COMBINING.iter().any(|name| *name != "propertyNames" && fields.contains_key(*name));
    if has_plain_properties && fields.get("unevaluatedProperties") == Some(&Value::Bool(false)) {
        fields.remove("unevaluatedProperties");
        fields.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    if !["properties", "patternProperties"].iter().all(|name| !fields.contains_key(*name)) {
        return;
    }
    let Some(Value::Object(rule)) = fields.get("propertyNames") else { return };
    if rule.keys().any(|name| !matches!(name.as_str(), "type" | "pattern" | "enum") && !is_remark(name)) {
        return;
    }
    let each = fields.get("additionalProperties").cloned().unwrap_or(Value::Bool(true));
    let (keyword, names) = match (rule.get("pattern"), rule.get("enum")) {
        (Some(Value::String(pattern)), None) => ("patternProperties", vec![pattern.clone()]),
        (None, Some(Value::Array(names))) => {
            ("properties", names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => return,
    };
    let all: Map<String, Value> = names.into_iter().map(|name| (name, each.clone())).collect();
    fields.remove("propertyNames");
    fields.insert(keyword.to_owned(), Value::Object(all));
    fields.insert("additionalProperties".to_owned(), Value::Bool(false));
}

/// What llguidance's formats allow too much of: days that a year has not, seconds that hardly a minute has,
/// names that are too long.
fn with_whole_formats(fields: &mut Map<String, Value>) {
    const DATE: &str = "([0-9]{4}-(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|\
                        [0-9]{4}-(0[469]|11)-(0[1-9]|[12][0-9]|30)|\
                        [0-9]{4}-02-(0[1-9]|1[0-9]|2[0-8])|\
                        ([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)";
    const TIME: &str = "[0-9]{2}:[0-9]{2}:[0-5][0-9]";
    let rule = match fields.get("format").and_then(Value::as_str) {
        Some("date") => json!({ "pattern": format!("^{DATE}$") }),
        Some("time") => json!({ "pattern": format!("^{TIME}") }),
        Some("date-time") => json!({ "pattern": format!("^{DATE}[tT]{TIME}") }),
        Some("hostname") => json!({ "maxLength": 253 }),
        _ => return,
    };
    if let Value::Array(all) = fields.entry("allOf").or_insert_with(|| json!([])) {
        all.push(rule);
    }
}

/// Sizes that are written as floating-point numbers, and bounds that those cannot hold, rounded to what
/// allows less.
fn with_exact_bounds(fields: &mut Map<String, Value>) {
    for name in ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"] {
        let float = fields.get(name).filter(|size| size.is_f64()).and_then(Value::as_f64);
        if let Some(float) = float.filter(|float| float.fract() == 0.0 && (0.0..1e15).contains(float)) {
            fields.insert(name.to_owned(), json!(float as u64));
        }
    }
    for (name, is_lower) in
        [("minimum", true), ("exclusiveMinimum", true), ("maximum", false), ("exclusiveMaximum", false)]
    {
        let Some(Value::Number(number)) = fields.get(name) else { continue };
        let whole = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
        let Some((whole, rounded)) = whole.zip(number.as_f64()) else { continue };
        let rounded = match (rounded as i128).cmp(&whole) {
            std::cmp::Ordering::Less if is_lower => rounded.next_up(),
            std::cmp::Ordering::Greater if !is_lower => rounded.next_down(),
            std::cmp::Ordering::Equal => continue,
            _ => rounded,
        };
        fields.insert(name.to_owned(), json!(rounded));
    }
}

/// Whether an object lists all that it is about, and nothing else describes it.
fn lists_all(fields: &Map<String, Value>) -> bool {
    let Some(Value::Object(properties)) = fields.get("properties") else { return false };
    let open = ["additionalProperties", "patternProperties", "unevaluatedProperties"];
    if properties.is_empty() || open.iter().chain(&COMBINING).any(|name| fields.contains_key(*name)) {
        return false;
    }
    let required = fields.get("required").and_then(Value::as_array);
    let all_listed =
        required.into_iter().flatten().filter_map(Value::as_str).all(|name| properties.contains_key(name));
    let fewest = fields.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    all_listed && fewest <= properties.len() as u64
}

/// Whether a reference stands beside other keywords, or within `allOf`: what it refers to is then not all
/// that describes a value.
fn merges_references(schema: &Value, merged: bool) -> bool {
    match schema {
        Value::Object(fields) => {
            let combines = |name: &str| matches!(name, "anyOf" | "oneOf" | "allOf");
            let says_more = fields.keys().any(|name| name != "$ref" && !combines(name) && !is_remark(name));
            let all: usize = fields.keys().filter(|name| combines(name) || *name == "$ref").count();
            let merges = merged || says_more || all > 1;
            fields.contains_key("$ref") && merges
                || fields.iter().any(|(name, part)| {
                    let merged = combines(name) && (merges || name == "allOf");
                    merges_references(part, merged)
                })
        }
        Value::Array(all) => all.iter().any(|part| merges_references(part, merged)),
        _ => false,
    }
}

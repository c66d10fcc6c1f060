//! Changes to a JSON file of somebody else: values are set, everything else stays as it is, comments, order
//! and indentation included.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode};
use serde_json::Value;

/// One change.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Sets the value at this path of names; objects on the way are made.
    Set(Vec<String>, Value),
    /// In the list at this path: replaces the object that has the same value under `key`, or adds one.
    Entry { list: Vec<String>, key: &'static str, value: Value },
}

impl Change {
    pub fn set(path: &[&str], value: impl Into<Value>) -> Self {
        Self::Set(owned(path), value.into())
    }

    pub fn entry(list: &[&str], key: &'static str, value: Value) -> Self {
        Self::Entry { list: owned(list), key, value }
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|name| (*name).to_owned()).collect()
}

/// Why a file is left alone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JsonError {
    /// It is broken.
    #[error("it is not valid JSON: {0}")]
    Broken(String),
    /// It is not built as expected.
    #[error("{path} in it is not {expected}")]
    Shape {
        /// Which value.
        path: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// Comments and trailing commas are common in settings; other liberties are mistakes.
fn options() -> ParseOptions {
    ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// The text with these changes. An empty text becomes a file.
///
/// # Errors
/// [`JsonError`]; a broken file is not for us to mend.
pub(super) fn changed(text: &str, changes: &[Change]) -> Result<String, JsonError> {
    let root = CstRootNode::parse(text, &options()).map_err(|error| JsonError::Broken(error.to_string()))?;
    for change in changes {
        match change {
            Change::Set(path, value) => set(&root, path, value)?,
            Change::Entry { list, key, value } => enter(&list_at(&root, list)?, key, value),
        }
    }
    let mut text = root.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn set(root: &CstRootNode, path: &[String], value: &Value) -> Result<(), JsonError> {
    let Some((name, above)) = path.split_last() else { return Ok(()) };
    let object = object_at(root, above)?;
    match object.get(name) {
        // What is so already keeps its form.
        Some(property) if property.to_serde_value().as_ref() == Some(value) => {}
        Some(property) => property.set_value(input(value)),
        None => drop(object.append(name, input(value))),
    }
    Ok(())
}

fn object_at(root: &CstRootNode, path: &[String]) -> Result<CstObject, JsonError> {
    let wrong = |depth: usize| JsonError::Shape { path: place(&path[..depth]), expected: "an object" };
    let mut object = root.object_value_or_create().ok_or_else(|| wrong(0))?;
    for (depth, name) in path.iter().enumerate() {
        object = object.object_value_or_create(name).ok_or_else(|| wrong(depth + 1))?;
    }
    Ok(object)
}

fn list_at(root: &CstRootNode, path: &[String]) -> Result<CstArray, JsonError> {
    let list = match path.split_last() {
        None => root.array_value_or_create(),
        Some((name, above)) => object_at(root, above)?.array_value_or_create(name),
    };
    list.ok_or_else(|| JsonError::Shape { path: place(path), expected: "a list" })
}

fn enter(list: &CstArray, key: &str, value: &Value) {
    let same = |node: &CstNode| node.to_serde_value().is_some_and(|entry| entry[key] == value[key]);
    match list.elements().into_iter().find(same).and_then(|node| node.as_object()) {
        Some(entry) if entry.to_serde_value().as_ref() == Some(value) => {}
        Some(entry) => drop(entry.replace_with(input(value))),
        None => drop(list.append(input(value))),
    }
}

fn place(path: &[String]) -> String {
    if path.is_empty() { "the whole".to_owned() } else { path.join(".") }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(map) => {
            CstInputValue::Object(map.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(text: &str) -> Value {
        CstRootNode::parse(text, &options()).unwrap().to_serde_value().unwrap()
    }

    #[test]
    fn comments_order_and_indentation_of_others_stay() {
        let before = "{\n    // mine\n    \"b\": 1, /* two */\n    \"a\": {\"x\": [1,2]},\n}\n";
        let after = changed(
            before,
            &[Change::set(&["a", "y"], "new"), Change::set(&["c"], true), Change::set(&["b"], 2)],
        )
        .unwrap();
        for kept in ["    // mine\n", "/* two */", "\"x\": [1,2]"] {
            assert!(after.contains(kept), "{kept:?} is not in {after}");
        }
        let value = parsed(&after);
        assert_eq!(value, json!({"b": 2, "a": {"x": [1, 2], "y": "new"}, "c": true}));
        // A second time nothing changes.
        let again = [Change::set(&["a", "y"], "new"), Change::set(&["b"], 2)];
        assert_eq!(changed(&after, &again).unwrap(), after);
    }

    #[test]
    fn an_empty_file_becomes_one() {
        for text in ["", "  \n", "// only this\n"] {
            let after = changed(text, &[Change::set(&["a", "b"], 1)]).unwrap();
            let value = parsed(&after);
            assert_eq!(value, json!({"a": {"b": 1}}), "{text:?}");
        }
        let entry = json!({"vendor": "ollama", "url": "x"});
        let after = changed("", &[Change::entry(&[], "vendor", entry.clone())]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&after).unwrap(), json!([entry]));
    }

    #[test]
    fn entries_of_lists_are_replaced_by_their_key() {
        let before = r#"{"models": [{"id": "mine"}, {"id": "ours", "old": 1}]}"#;
        let entry = json!({"id": "ours", "new": [1.5, null]});
        let change = [Change::entry(&["models"], "id", entry)];
        let after = changed(before, &change).unwrap();
        let value: Value = serde_json::from_str(&after).unwrap();
        assert_eq!(value, json!({"models": [{"id": "mine"}, {"id": "ours", "new": [1.5, null]}]}));
        assert_eq!(changed(&after, &change).unwrap(), after);
    }

    #[test]
    fn broken_files_and_other_shapes_are_refused() {
        for text in ["{\"a\": ", "{a: 1}", "{\"a\" 1}", "{'a': 1}", "{\"a\": 1} x", "{\"a\": 1 \"b\": 2}"] {
            let error = changed(text, &[Change::set(&["a"], 1)]).unwrap_err();
            assert!(matches!(error, JsonError::Broken(_)), "{text}: {error}");
        }
        let error = changed("[1]", &[Change::set(&["a"], 1)]).unwrap_err();
        assert_eq!(error.to_string(), "the whole in it is not an object");
        let error = changed(r#"{"a": 1}"#, &[Change::set(&["a", "b"], 1)]).unwrap_err();
        assert_eq!(error.to_string(), "a in it is not an object");
        let error = changed(r#"{"a": {}}"#, &[Change::entry(&["a"], "id", json!({}))]).unwrap_err();
        assert_eq!(error.to_string(), "a in it is not a list");
    }
}

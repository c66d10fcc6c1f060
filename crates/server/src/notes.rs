//! Parts of conversations that have no place in a chat template (documents, results of tools that other
//! servers ran, items of protocols to come): the text that they hold is taken, the rest becomes a short note,
//! and the conversation continues.

use serde_json::Value;

/// How deep text may be nested in a part.
const DEEPEST: usize = 6;

/// Fields that hold text, or parts that do, in the order in which they are told.
const FIELDS: [&str; 12] = [
    "title",
    "url",
    "name",
    "tool_name",
    "input",
    "text",
    "context",
    "summary",
    "stdout",
    "stderr",
    "output",
    "content",
];

/// What is told of a part.
#[must_use]
pub fn of_part(part: &Value) -> String {
    let kind = part["type"].as_str().filter(|kind| !kind.is_empty()).unwrap_or("part");
    let mut texts = Vec::new();
    let source = &part["source"];
    gather(part, 0, &mut texts);
    if source["type"] == "text" {
        texts.extend(source["data"].as_str().map(str::to_owned));
    } else {
        gather(&source["content"], 0, &mut texts);
    }
    if texts.is_empty() { format!("[{kind}: left out]") } else { format!("[{kind}]\n{}", texts.join("\n")) }
}

fn gather(value: &Value, depth: usize, out: &mut Vec<String>) {
    match value {
        _ if depth > DEEPEST => {}
        Value::String(text) if !text.is_empty() => out.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| gather(item, depth + 1, out)),
        Value::Object(map) => {
            for field in FIELDS {
                match map.get(field) {
                    // What a tool was given is told as it was.
                    Some(input @ Value::Object(_)) if field == "input" => out.push(input.to_string()),
                    Some(inner) => gather(inner, depth + 1, out),
                    None => {}
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_taken_and_the_rest_is_noted() {
        for (part, told) in [
            (
                json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}),
                "[document]\na",
            ),
            (
                json!({"type": "document", "title": "T", "source": {"type": "content", "content": [{"type": "text", "text": "a"}]}}),
                "[document]\nT\na",
            ),
            (
                json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}}),
                "[document: left out]",
            ),
            (
                json!({"type": "search_result", "title": "T", "source": "https://x", "content": [{"type": "text", "text": "a"}]}),
                "[search_result]\nT\na",
            ),
            (
                json!({"type": "mcp_tool_use", "id": "1", "name": "f", "server_name": "s", "input": {"a": 1}}),
                "[mcp_tool_use]\nf\n{\"a\":1}",
            ),
            (
                json!({"type": "web_search_tool_result", "content": [{"type": "web_search_result", "title": "T", "url": "u", "encrypted_content": "zz"}]}),
                "[web_search_tool_result]\nT\nu",
            ),
            (
                json!({"type": "code_execution_tool_result", "content": {"type": "code_execution_result", "stdout": "o", "return_code": 0}}),
                "[code_execution_tool_result]\no",
            ),
            (json!({"type": "compaction", "encrypted_content": "zz"}), "[compaction: left out]"),
            (json!({}), "[part: left out]"),
            (json!(3), "[part: left out]"),
        ] {
            assert_eq!(of_part(&part), told, "{part}");
        }
        let deep = (0..100).fold(json!("x"), |inner, _| json!({"content": inner}));
        assert_eq!(of_part(&deep), "[part: left out]");
    }
}

//! Regular expressions as llguidance is to have them.
//!
//! Where a class has all control characters, or all but the line break, llguidance takes every escape of JSON
//! for them: `\\` and `\"` too, whether the class has those characters or not. `[^"]` then allows what it
//! excludes. So classes that exclude something exclude U+0001 as well, which nobody writes, and are then
//! looked at one by one.

use serde_json::{Map, Value};

/// Excluded beside what a class excludes.
const EXCLUDED: &str = r"\x01";

/// Patterns of values, and of the names of properties, in one schema.
pub(super) fn with_exact_classes(fields: &mut Map<String, Value>) {
    if let Some(Value::String(pattern)) = fields.get_mut("pattern") {
        *pattern = exact(pattern);
    }
    if let Some(Value::Object(all)) = fields.get_mut("patternProperties") {
        *all = std::mem::take(all).into_iter().map(|(pattern, schema)| (exact(&pattern), schema)).collect();
    }
}

fn exact(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + EXCLUDED.len());
    let (mut chars, mut in_class) = (pattern.chars().peekable(), false);
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' => out.extend(chars.next()),
            '[' if !in_class => {
                in_class = true;
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                    out.push_str(EXCLUDED);
                }
            }
            ']' => in_class = false,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::exact;

    #[test]
    fn only_classes_that_exclude_are_changed() {
        for (pattern, expected) in [
            (r"^[^\\]+$", r"^[^\x01\\]+$"),
            (r#"[^"][a^]"#, r#"[^\x01"][a^]"#),
            (r"\[^a]", r"\[^a]"),
            (r"[[^]x[^\]]", r"[[^]x[^\x01\]]"),
            ("a^b$", "a^b$"),
            ("é\\", "é\\"),
        ] {
            assert_eq!(exact(pattern), expected, "{pattern}");
        }
    }
}

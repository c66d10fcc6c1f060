//! Modelfiles: `FROM`, `PARAMETER`, `TEMPLATE`, `SYSTEM`, `MESSAGE`, `LICENSE`, with values of several lines
//! in `"""`.

use serde_json::{Map, Number, Value as Json};
use std::fmt::Write as _;

use super::entry::ModelEntry;
use super::settings::{Message, ModelSettings};

/// What a Modelfile says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Modelfile {
    /// A name of a model, or a path.
    pub from: String,
    /// LoRA adapters, which are paths.
    pub adapters: Vec<String>,
    /// A draft model, a name or a path.
    pub draft: Option<String>,
    /// Everything else.
    pub settings: ModelSettings,
}

/// What is wrong with a Modelfile, and in which line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ModelfileError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl Modelfile {
    /// The text of a Modelfile: UTF-8, or UTF-16 where a byte order mark says so, as editors and shells of
    /// Windows write it. What is not text in it becomes U+FFFD, as in Ollama.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> String {
        let wide = |unit: fn([u8; 2]) -> u16, bytes: &[u8]| {
            // Half a unit at the end is no text.
            let units = bytes.chunks(2).map(|pair| pair.try_into().map_or(0xD800, unit));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        };
        match bytes {
            [0xFF, 0xFE, rest @ ..] => wide(u16::from_le_bytes, rest),
            [0xFE, 0xFF, rest @ ..] => wide(u16::from_be_bytes, rest),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    /// Reads the text of a Modelfile.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, ModelfileError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut file = Self::default();
        let mut lines = text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            let fail = |what: String| ModelfileError { line: at + 1, what };
            let line = line.trim_start();
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let command = command.to_ascii_uppercase();
            let (word, rest) = match command.as_str() {
                "PARAMETER" | "MESSAGE" => {
                    let rest = rest.trim_start();
                    rest.split_once(char::is_whitespace).unwrap_or((rest, ""))
                }
                _ => ("", rest),
            };
            let value = value_of(rest, &mut lines.by_ref().map(|(_, line)| line)).map_err(fail)?;
            file.take(&command, word, value).map_err(fail)?;
        }
        if file.from.is_empty() {
            return Err(ModelfileError { line: 1, what: "no FROM line".to_owned() });
        }
        Ok(file)
    }

    fn take(&mut self, command: &str, word: &str, value: String) -> Result<(), String> {
        if value.is_empty() && !matches!(command, "SYSTEM" | "TEMPLATE") {
            return Err(format!("{command} without a value"));
        }
        let settings = &mut self.settings;
        match command {
            "FROM" => self.from = value,
            "ADAPTER" => self.adapters.push(value),
            "DRAFT" => self.draft = Some(value),
            "TEMPLATE" => settings.template = Some(value),
            "SYSTEM" => settings.system = Some(value),
            "LICENSE" => settings.licenses.push(value),
            "PARAMETER" => add_parameter(&mut settings.parameters, word, &value)?,
            "MESSAGE" => settings.messages.push(message(word, value)?),
            "RENDERER" => settings.renderer = Some(value),
            "PARSER" => settings.parser = Some(value),
            "REQUIRES" => settings.requires = Some(value),
            _ => {
                return Err(format!(
                    "`{command}` is no command: there are FROM, PARAMETER, TEMPLATE, SYSTEM, MESSAGE, LICENSE, ADAPTER, DRAFT, RENDERER, PARSER and REQUIRES"
                ));
            }
        }
        Ok(())
    }
}

fn add_parameter(parameters: &mut Map<String, Json>, key: &str, text: &str) -> Result<(), String> {
    let key = key.to_ascii_lowercase();
    if key == "stop" {
        let list = parameters.entry(key).or_insert_with(|| Json::Array(Vec::new()));
        if let Json::Array(items) = list {
            items.push(Json::from(text));
        }
        return Ok(());
    }
    let value = match text {
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        _ => number(text).ok_or_else(|| format!("PARAMETER {key}: `{text}` is no number, true or false"))?,
    };
    parameters.insert(key, value);
    Ok(())
}

fn number(text: &str) -> Option<Json> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Json::from(whole));
    }
    text.parse::<f64>().ok().and_then(Number::from_f64).map(Json::Number)
}

fn message(role: &str, content: String) -> Result<Message, String> {
    let role = role.to_ascii_lowercase();
    if matches!(role.as_str(), "system" | "user" | "assistant") {
        Ok(Message { role, content })
    } else {
        Err(format!("MESSAGE by `{role}`: it must be system, user or assistant"))
    }
}

/// A value: the rest of the line, in quotes or not, or all lines up to the next `"""`.
fn value_of(rest: &str, more: &mut dyn Iterator<Item = &str>) -> Result<String, String> {
    let rest = rest.trim_start();
    for fence in ["\"\"\"", "\""] {
        let Some(begin) = rest.strip_prefix(fence) else { continue };
        if let Some(inner) = begin.trim_end().strip_suffix(fence) {
            return Ok(inner.to_owned());
        }
        if fence.len() == 1 {
            return Err("a quote is not closed (use \"\"\" for several lines)".to_owned());
        }
        // A line end right after the fence is not meant.
        let mut first = begin.trim().is_empty();
        let mut text = if first { String::new() } else { begin.to_owned() };
        for line in more {
            if !first {
                text.push('\n');
            }
            first = false;
            if let Some(end) = line.trim_end().strip_suffix(fence) {
                text.push_str(end);
                return Ok(text);
            }
            text.push_str(line);
        }
        return Err("\"\"\" is not closed".to_owned());
    }
    Ok(rest.trim_end().to_owned())
}

/// The Modelfile that makes this model again.
pub(super) fn written(entry: &ModelEntry) -> String {
    let mut text = format!(
        "# Modelfile generated by \"hypura show\"\n# To build a new model based on this one, change it and run: \
         hypura create NAME -f Modelfile\n\nFROM {}\n",
        entry.name
    );
    // Writing to a string cannot fail.
    if let Some(template) = entry.used_template() {
        let _ = writeln!(text, "TEMPLATE {}", quoted(template));
    }
    if let Some(system) = entry.settings.system.as_deref().filter(|system| !system.is_empty()) {
        let _ = writeln!(text, "SYSTEM {}", quoted(system));
    }
    let mut keys: Vec<&String> = entry.settings.parameters.keys().collect();
    keys.sort();
    for key in keys {
        let items = match entry.settings.parameters.get(key) {
            Some(Json::Array(items)) => items.as_slice(),
            Some(item) => std::slice::from_ref(item),
            None => &[],
        };
        for item in items {
            let item = item.as_str().map_or_else(|| item.to_string(), quoted);
            let _ = writeln!(text, "PARAMETER {key} {item}");
        }
    }
    for message in &entry.settings.messages {
        let _ = writeln!(text, "MESSAGE {} {}", message.role, quoted(&message.content));
    }
    for license in &entry.settings.licenses {
        let _ = writeln!(text, "LICENSE {}", quoted(license));
    }
    text
}

fn quoted(text: &str) -> String {
    if text.contains(['\n', '"']) || text.len() > 80 {
        format!("\"\"\"{text}\"\"\"")
    } else {
        format!("\"{text}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn modelfiles_in_utf_16_are_read() {
        let text = "FROM ./a.gguf\r\nSYSTEM Grüße, 🦀\r\n";
        let wide = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
        };
        let marked = [&[0xEF, 0xBB, 0xBF], text.as_bytes()].concat();
        for bytes in [wide(u16::to_le_bytes), wide(u16::to_be_bytes), text.as_bytes().to_vec(), marked] {
            let file = Modelfile::parse(&Modelfile::decode(&bytes)).unwrap();
            assert_eq!(
                (file.from.as_str(), file.settings.system.as_deref()),
                ("./a.gguf", Some("Grüße, 🦀"))
            );
        }
        assert_eq!(Modelfile::decode(&[0xFF, 0xFE, b'a', 0, 0, 0xDC, b'b']), "a\u{fffd}\u{fffd}");
        assert_eq!(Modelfile::decode(b"a\xffb"), "a\u{fffd}b");
    }

    #[test]
    fn a_usual_modelfile_is_read() {
        let file = Modelfile::parse(
            "# comment\nFROM ./model.gguf\nparameter temperature 0.7\nPARAMETER num_ctx 8192\nPARAMETER stop <|a|>\nPARAMETER stop \"User: \"\n\
             SYSTEM \"\"\"\nYou are\n  Mario.\n\"\"\"\nTEMPLATE \"\"\"{{ .Prompt }}\"\"\"\nMESSAGE user Hi \nMESSAGE assistant \"\"\"Ho\nho\"\"\"\nLICENSE MIT\n",
        )
        .unwrap();
        assert_eq!(file.from, "./model.gguf");
        assert_eq!(file.settings.system.as_deref(), Some("You are\n  Mario.\n"));
        assert_eq!(file.settings.template.as_deref(), Some("{{ .Prompt }}"));
        let parameters = json!({"temperature": 0.7, "num_ctx": 8192, "stop": ["<|a|>", "User: "]});
        assert_eq!(Json::Object(file.settings.parameters), parameters);
        let say = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        assert_eq!(file.settings.messages, [say("user", "Hi"), say("assistant", "Ho\nho")]);
        assert_eq!(file.settings.licenses, ["MIT"]);
    }

    #[test]
    fn faults_are_told_with_their_line() {
        for (text, line, part) in [
            ("SYSTEM x", 1, "no FROM"),
            ("FROM x\nSYSTEM \"\"\"never\nends", 2, "not closed"),
            ("FROM x\n\nTEMPERATURE 1", 3, "is no command"),
            ("FROM x\nPARAMETER num_ctx many", 2, "is no number"),
            ("FROM x\nPARAMETER num_ctx", 2, "without a value"),
            ("FROM x\nMESSAGE tool hi", 2, "must be"),
            ("FROM", 1, "without a value"),
            ("FROM \"x", 1, "not closed"),
        ] {
            let error = Modelfile::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.what.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_modelfile_or_an_error(text in "(FROM |SYSTEM |PARAMETER |MESSAGE |\"\"\"|\"|\n|[a-z]{1,3}| |#|é){0,30}") {
            if let Ok(file) = Modelfile::parse(&text) {
                prop_assert!(!file.from.is_empty());
            }
        }

        #[test]
        fn what_is_quoted_is_read_back(text in "[a-z \"\n\\\\é]{1,100}") {
            // The format has no escape for its own fence.
            prop_assume!(!text.contains("\"\"\"") && !text.starts_with('"') && !text.ends_with('"'));
            // A first line that is blank is not kept.
            prop_assume!(text.lines().next().is_some_and(|line| !line.trim().is_empty()));
            let file = Modelfile::parse(&format!("FROM x\nSYSTEM {}\n", quoted(&text))).unwrap();
            prop_assert_eq!(file.settings.system, Some(text));
        }
    }
}

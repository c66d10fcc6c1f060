//! What a typed line means.

use serde_json::{Map, Value};

use super::help::{self, PARAMETERS};
use hypura_server::options::Options;

/// Begins and ends a text of several lines.
const FENCE: &str = "\"\"\"";

/// What a person typed.
#[derive(Debug, PartialEq)]
pub(super) enum Typed {
    Nothing,
    Bye,
    Clear,
    Help(String),
    Set(Setting),
    Show(Part),
    Load(String),
    Save(String),
    /// What is wrong with it, and what would be right.
    Wrong(String),
    Text(String),
}

/// A setting and its new value; `None` takes it back.
#[derive(Debug, PartialEq)]
pub(super) enum Setting {
    Parameter(String, Option<Value>),
    System(String),
    Format(Option<Value>),
    Think(Option<Value>),
    Verbose(bool),
    WordWrap(bool),
    Markdown(bool),
    History(bool),
}

/// What `/show` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::run) enum Part {
    Info,
    License,
    Modelfile,
    Parameters,
    System,
    Template,
}

impl Part {
    const ALL: [(&str, Self); 6] = [
        ("info", Self::Info),
        ("license", Self::License),
        ("modelfile", Self::Modelfile),
        ("parameters", Self::Parameters),
        ("system", Self::System),
        ("template", Self::Template),
    ];
}

/// Whether a text of several lines has begun and not ended.
pub(super) fn is_open(text: &str) -> bool {
    let begins = |text: &str| text.strip_prefix(FENCE).is_some_and(|rest| !rest.trim_end().ends_with(FENCE));
    let text = text.trim_start();
    begins(text) || text.strip_prefix("/set system").is_some_and(|rest| begins(rest.trim_start()))
}

/// Reads a line, or several between fences.
pub(super) fn understand(text: &str) -> Typed {
    let text = text.trim();
    if text.starts_with(FENCE) {
        let inner = unfenced(text);
        return if inner.trim().is_empty() { Typed::Nothing } else { Typed::Text(inner) };
    }
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let is_command =
        word.strip_prefix('/').is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'?'));
    match word {
        "" => Typed::Nothing,
        "/bye" | "/exit" | "/quit" => Typed::Bye,
        "/clear" => Typed::Clear,
        "/help" | "/?" => Typed::Help(rest.to_owned()),
        "/set" => set(rest).map_or_else(Typed::Wrong, Typed::Set),
        "/show" => show(rest),
        "/load" | "/save" if rest.is_empty() || rest.contains(char::is_whitespace) => {
            Typed::Wrong(format!("{word} takes the name of a model: {word} NAME"))
        }
        "/load" => Typed::Load(rest.to_owned()),
        "/save" => Typed::Save(rest.to_owned()),
        _ if is_command && is_name_of_command(word) => {
            Typed::Wrong(format!("There is no {word}; what there is:\n{}", help::COMMANDS))
        }
        _ => Typed::Text(text.to_owned()),
    }
}

/// Paths begin like commands; a word of a path has more slashes, or is a file that is there.
fn is_name_of_command(word: &str) -> bool {
    !std::path::Path::new(word).exists()
}

fn unfenced(text: &str) -> String {
    match text.strip_prefix(FENCE) {
        Some(rest) => rest.strip_suffix(FENCE).unwrap_or(rest).trim_matches('\n').to_owned(),
        None => text.to_owned(),
    }
}

fn show(rest: &str) -> Typed {
    match Part::ALL.iter().find(|(name, _)| *name == rest) {
        Some((_, part)) => Typed::Show(*part),
        None => Typed::Wrong(help::about("show")),
    }
}

fn set(rest: &str) -> Result<Setting, String> {
    let (word, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let value = value.trim();
    Ok(match word {
        "verbose" => Setting::Verbose(true),
        "quiet" => Setting::Verbose(false),
        "wordwrap" => Setting::WordWrap(true),
        "nowordwrap" => Setting::WordWrap(false),
        "markdown" => Setting::Markdown(true),
        "nomarkdown" => Setting::Markdown(false),
        "history" => Setting::History(true),
        "nohistory" => Setting::History(false),
        "noformat" => Setting::Format(None),
        "format" => Setting::Format(Some(format(value)?)),
        "nothink" => Setting::Think(Some(false.into())),
        "think" => Setting::Think(Some(think(value)?)),
        "system" => Setting::System(unfenced(value)),
        "parameter" => parameter(value)?,
        _ => return Err(help::about("set")),
    })
}

fn format(value: &str) -> Result<Value, String> {
    match value {
        "json" => Ok("json".into()),
        _ => serde_json::from_str::<Value>(value)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| "/set format takes json, or a JSON schema: /set format json".to_owned()),
    }
}

fn think(value: &str) -> Result<Value, String> {
    match value {
        "" | "true" => Ok(true.into()),
        "false" => Ok(false.into()),
        "low" | "medium" | "high" | "max" => Ok(value.into()),
        _ => Err("/set think takes nothing, low, medium, high or max".to_owned()),
    }
}

fn parameter(rest: &str) -> Result<Setting, String> {
    let (name, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if !PARAMETERS.iter().any(|(known, _)| *known == name) {
        return Err(format!("There is no parameter {name:?}; those that there are:\n{}", help::parameters()));
    }
    let text = text.trim();
    if text.is_empty() {
        return Ok(Setting::Parameter(name.to_owned(), None));
    }
    let value = match name {
        "stop" => Value::from(words(text)),
        _ => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    };
    let one: Map<String, Value> = [(name.to_owned(), value.clone())].into_iter().collect();
    Options::of_json(&one).map(drop)?;
    Ok(Setting::Parameter(name.to_owned(), Some(value)))
}

/// Words, which may be in quotes.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let quoted = rest.strip_prefix('"').and_then(|inner| inner.split_once('"'));
        let (word, after) =
            quoted.unwrap_or_else(|| rest.split_once(char::is_whitespace).unwrap_or((rest, "")));
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands_are_told_from_text() {
        assert_eq!(understand(" /bye "), Typed::Bye);
        assert_eq!(understand("/clear"), Typed::Clear);
        assert_eq!(understand("/?"), Typed::Help(String::new()));
        assert_eq!(understand("/? set"), Typed::Help("set".to_owned()));
        assert!(matches!(understand("/cler"), Typed::Wrong(text) if text.starts_with("There is no /cler")));
        assert_eq!(understand("/etc/hosts is what?"), Typed::Text("/etc/hosts is what?".to_owned()));
        assert_eq!(understand("/etc is what?"), Typed::Text("/etc is what?".to_owned()));
        assert_eq!(understand("  "), Typed::Nothing);
        assert_eq!(understand(" hi "), Typed::Text("hi".to_owned()));
        assert_eq!(understand("/save mine:1"), Typed::Save("mine:1".to_owned()));
        assert!(matches!(understand("/load"), Typed::Wrong(_)));
        assert_eq!(understand("/show template"), Typed::Show(Part::Template));
        assert!(matches!(understand("/show"), Typed::Wrong(_)));
    }

    #[test]
    fn fences_make_texts_of_several_lines() {
        assert!(is_open("\"\"\"one") && is_open("\"\"\"") && !is_open("one \"\"\""));
        assert!(!is_open("\"\"\"one\ntwo\"\"\"") && !is_open("\"\"\"one\"\"\" "));
        assert_eq!(understand("\"\"\"\n  one\n\ntwo\n\"\"\""), Typed::Text("  one\n\ntwo".to_owned()));
        assert_eq!(understand("\"\"\"/bye\"\"\""), Typed::Text("/bye".to_owned()));
        assert_eq!(understand("\"\"\"\n\"\"\""), Typed::Nothing);
        assert!(is_open("/set system \"\"\"one") && !is_open("/set system one"));
        let several = "/set system \"\"\"one\ntwo\"\"\"";
        assert!(!is_open(several));
        assert_eq!(understand(several), Typed::Set(Setting::System("one\ntwo".to_owned())));
    }

    #[test]
    fn settings_are_read_and_checked() {
        let parameter = |text: &str| match understand(&format!("/set parameter {text}")) {
            Typed::Set(Setting::Parameter(name, value)) => Ok((name, value)),
            Typed::Wrong(why) => Err(why),
            other => panic!("{other:?}"),
        };
        assert_eq!(parameter("temperature 0.5"), Ok(("temperature".to_owned(), Some(json!(0.5)))));
        assert_eq!(parameter("seed"), Ok(("seed".to_owned(), None)));
        assert_eq!(parameter("stop \"a b\" c"), Ok(("stop".to_owned(), Some(json!(["a b", "c"])))));
        assert!(parameter("temperature hot").unwrap_err().contains("float32"));
        assert!(parameter("tempo 1").unwrap_err().contains("top_k"));
        assert_eq!(understand("/set think"), Typed::Set(Setting::Think(Some(json!(true)))));
        assert_eq!(understand("/set think high"), Typed::Set(Setting::Think(Some(json!("high")))));
        assert_eq!(understand("/set nothink"), Typed::Set(Setting::Think(Some(json!(false)))));
        assert!(matches!(understand("/set think a lot"), Typed::Wrong(_)));
        assert_eq!(understand("/set format json"), Typed::Set(Setting::Format(Some(json!("json")))));
        let schema = json!({"type": "object"});
        assert_eq!(understand(&format!("/set format {schema}")), Typed::Set(Setting::Format(Some(schema))));
        assert!(matches!(understand("/set format yaml"), Typed::Wrong(_)));
        assert_eq!(understand("/set quiet"), Typed::Set(Setting::Verbose(false)));
        assert!(matches!(understand("/set nonsense"), Typed::Wrong(text) if text.contains("/set system")));
    }
}

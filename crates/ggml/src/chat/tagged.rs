//! Tools whose arguments a template writes with a tag each (Qwen3-Coder, GLM, MiniMax, …): strings as they
//! are, everything else as JSON. llama.cpp's grammar says where each argument stands; what it may be is said
//! here, argument by argument: values of JSON schemas by llguidance, texts of a list by the grammar itself.
//!
//! Texts that are held to a pattern, a format or a length are not enforced: where they end is a matter of the
//! template. A strict tool with one is refused by name.

use serde_json::{Map, Value, json};
use std::cell::Cell;

use super::{ChatError, ChatRequest};
use crate::grammar::Grammar;
use crate::schema::placeholder_rule;
use crate::vocab::Vocab;

/// Parts of a tool's schemas that are looked at.
const MOST_PARTS: u32 = 10_000;

/// Arguments that are enforced, those of all tools together; the others are as llama.cpp has them.
const MOST_ARGUMENTS: usize = 256;

/// Keywords of a text that are not enforced.
const OF_TEXTS: [&str; 7] = ["pattern", "format", "minLength", "maxLength", "not", "allOf", "if"];

/// Keywords of a whole object that are not about one argument alone.
const OF_OBJECTS: [&str; 6] = ["$ref", "allOf", "anyOf", "maxProperties", "minProperties", "oneOf"];

/// A request with a placeholder for each argument that can be enforced.
pub(super) struct Tagged {
    pub request: ChatRequest,
    /// What placeholders stand for, by their numbers.
    values: Vec<ArgumentValue>,
    /// Why the arguments of a strict tool are not enforced.
    refusal: Option<String>,
}

enum ArgumentValue {
    /// JSON that fits a schema.
    Json(String),
    /// One of these texts.
    Text(Vec<String>),
}

/// Whether values of a schema are texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Json,
    Either,
}

impl Tagged {
    /// # Errors
    /// [`ChatError::Input`]: the tools are no JSON.
    pub fn of(request: &ChatRequest, vocab: &Vocab) -> Result<Self, ChatError> {
        let tools = request.tools_json.as_deref().unwrap_or("[]");
        let mut tools: Value =
            serde_json::from_str(tools).map_err(|error| ChatError::Input(format!("tools: {error}")))?;
        let mut this = Self { request: request.clone(), values: Vec::new(), refusal: None };
        for function in tools.as_array_mut().into_iter().flatten().filter_map(|tool| tool.get_mut("function"))
        {
            let schema = function["parameters"].clone();
            if let (Err(reason), true) =
                (this.arguments(function, &schema, vocab), function["strict"] == true)
            {
                let name = function["name"].as_str().unwrap_or_default();
                this.refusal.get_or_insert(format!("tool `{name}`: parameters: {reason}"));
            }
        }
        if this.refusal.is_some() && this.values.is_empty() {
            this.add_probe(&mut tools);
        }
        this.request.tools_json = Some(tools.to_string());
        Ok(this)
    }

    /// An argument that nobody asked for, which shows whether the template writes arguments between tags.
    fn add_probe(&mut self, tools: &mut Value) {
        let probe = self.placeholder(ArgumentValue::Json(String::new()));
        let functions = tools.as_array_mut().into_iter().flatten();
        let mut properties =
            functions.filter_map(|tool| tool["function"]["parameters"]["properties"].as_object_mut());
        if let Some(properties) = properties.next() {
            properties.insert(text_of(0), probe);
        }
    }

    /// Whether a grammar has all the placeholders, and there are any.
    pub fn is_in(&self, grammar: &Grammar) -> bool {
        !self.values.is_empty() && (0..self.values.len()).all(|at| grammar.gbnf.contains(&rule(at)))
    }

    /// # Errors
    /// [`ChatError::Schema`]: what of a strict tool is not enforced.
    pub fn check_strict(&self) -> Result<(), ChatError> {
        self.refusal.as_ref().map_or(Ok(()), |reason| Err(ChatError::Schema(reason.clone())))
    }

    /// Says in a grammar with the placeholders what stands in their places.
    pub fn fill_in(self, grammar: &mut Grammar) {
        for (at, value) in self.values.into_iter().enumerate() {
            let filled = match value {
                ArgumentValue::Json(schema) => {
                    grammar.schemas.push(schema);
                    placeholder_rule(grammar.schemas.len() - 1)
                }
                ArgumentValue::Text(texts) => {
                    let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
                    format!("({})", texts.join(" | "))
                }
            };
            grammar.gbnf = grammar.gbnf.replace(&rule(at), &filled);
        }
    }

    /// Puts placeholders into the arguments of a function; the first that is not enforced, and why.
    fn arguments(&mut self, function: &mut Value, schema: &Value, vocab: &Vocab) -> Result<(), String> {
        let of_object = OF_OBJECTS.iter().find(|name| schema.get(**name).is_some());
        let mut result = of_object.map_or(Ok(()), |name| Err(not_enforced(name)));
        let mut names = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(name) = names.find(|name| schema["properties"].get(name).is_none()) {
            result = result.and(Err(format!("`{name}` is required and not among the properties")));
        }
        let Some(properties) = function["parameters"]["properties"].as_object_mut() else { return result };
        for (name, property) in properties {
            let argument = self.argument(property, &schema["properties"][name], schema, vocab);
            result = result.and(argument.map_err(|reason| format!("properties.{name}: {reason}")));
        }
        result
    }

    /// Puts a placeholder in the place of a property that can be enforced.
    fn argument(
        &mut self,
        property: &mut Value,
        own: &Value,
        root: &Value,
        vocab: &Vocab,
    ) -> Result<(), String> {
        let schemas = Schemas::new(root);
        if self.values.len() >= MOST_ARGUMENTS {
            return Err(format!("more than {MOST_ARGUMENTS} arguments cannot be enforced"));
        }
        match schemas.kind(own) {
            Kind::Text => {
                if let Some(texts) = schemas.texts(own) {
                    *property = self.placeholder(ArgumentValue::Text(texts));
                    return Ok(());
                }
                *property = json!({"type": "string"});
                schemas.keyword_of_texts(own).map_or(Ok(()), |name| Err(not_enforced(name)))
            }
            Kind::Json => {
                let schema = alone(own, root).to_string();
                let checked = vocab.check_schema(&schema).map_err(|error| error.to_string());
                let types = own.get("type").map_or_else(|| json!({}), |types| json!({ "type": types }));
                let schema = if checked.is_ok() { schema } else { types.to_string() };
                *property = self.placeholder(ArgumentValue::Json(schema));
                checked
            }
            Kind::Either if schemas.has_only_types(own) => Ok(()),
            Kind::Either => Err("what may be a text or JSON cannot be enforced between tags".to_owned()),
        }
    }

    /// A schema that llama.cpp takes for JSON, and that only one text fits.
    fn placeholder(&mut self, value: ArgumentValue) -> Value {
        self.values.push(value);
        json!({ "const": [text_of(self.values.len() - 1)] })
    }
}

fn not_enforced(keyword: &str) -> String {
    format!("`{keyword}` cannot be enforced where the template of the model writes arguments between tags")
}

fn text_of(at: usize) -> String {
    format!("hypura-argument-{at}-")
}

/// A placeholder as llama.cpp's grammar has it.
fn rule(at: usize) -> String {
    format!("\"[\\\"{}\\\"]\"", text_of(at))
}

/// A text in GBNF.
fn literal(text: &str) -> String {
    let mut literal = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => literal.extend(['\\', character]),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal
}

/// Looks at the schemas of one tool, references followed, as long as that takes no more than a moment.
struct Schemas<'a> {
    root: &'a Value,
    left: Cell<u32>,
}

impl<'a> Schemas<'a> {
    fn new(root: &'a Value) -> Self {
        Self { root, left: Cell::new(MOST_PARTS) }
    }

    /// A schema behind its references; `None` where it was looked at enough.
    fn resolved(&self, mut schema: &'a Value) -> Option<&'a Value> {
        loop {
            self.left.set(self.left.get().checked_sub(1)?);
            let target = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
            match target.and_then(|target| self.root.pointer(target)) {
                Some(target) => schema = target,
                None => return Some(schema),
            }
        }
    }

    fn kind(&self, schema: &'a Value) -> Kind {
        let Some(schema) = self.resolved(schema) else { return Kind::Either };
        let all = |kinds: Vec<Kind>| match kinds.split_first() {
            Some((first, rest)) if rest.iter().all(|kind| kind == first) => *first,
            _ => Kind::Either,
        };
        let of = |is_text: bool| if is_text { Kind::Text } else { Kind::Json };
        if let Some(values) = listed(schema) {
            return all(values.into_iter().map(|value| of(value.is_string())).collect());
        }
        match (&schema["type"], alternatives(schema)) {
            (Value::String(name), _) => of(name == "string"),
            (Value::Array(names), _) => all(names.iter().map(|name| of(name == "string")).collect()),
            (_, Some(parts)) => all(parts.iter().map(|part| self.kind(part)).collect()),
            _ => Kind::Either,
        }
    }

    /// The texts that a schema of texts lists, if that is all that it asks.
    fn texts(&self, schema: &'a Value) -> Option<Vec<String>> {
        let schema = self.resolved(schema)?;
        if keyword_of_texts(schema).is_some() {
            return None;
        }
        if let Some(values) = listed(schema) {
            return values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect();
        }
        let parts = alternatives(schema)?.iter().map(|part| self.texts(part));
        Some(parts.collect::<Option<Vec<_>>>()?.concat())
    }

    /// A keyword of a schema of texts that more is asked by than a list.
    fn keyword_of_texts(&self, schema: &'a Value) -> Option<&'static str> {
        let schema = self.resolved(schema)?;
        let of_part = |part| self.keyword_of_texts(part);
        keyword_of_texts(schema).or_else(|| alternatives(schema)?.iter().find_map(of_part))
    }

    /// Whether a schema asks for types and nothing else, so that any text is a value of it.
    fn has_only_types(&self, schema: &'a Value) -> bool {
        let Some(fields) = self.resolved(schema).and_then(Value::as_object) else {
            return schema == &Value::Bool(true);
        };
        fields.iter().all(|(name, value)| match name.as_str() {
            "type" | "title" | "description" | "default" | "examples" => true,
            "anyOf" | "oneOf" => value.as_array().into_iter().flatten().all(|part| self.has_only_types(part)),
            _ => false,
        })
    }
}

fn alternatives(schema: &Value) -> Option<&Vec<Value>> {
    ["anyOf", "oneOf"].into_iter().find_map(|name| schema[name].as_array())
}

/// The listed values of a schema.
fn listed(schema: &Value) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema["enum"].as_array()) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(values)) if !values.is_empty() => Some(values.iter().collect()),
        (None, _) => None,
    }
}

fn keyword_of_texts(schema: &Value) -> Option<&'static str> {
    OF_TEXTS.into_iter().find(|name| schema.get(name).is_some())
}

/// The schema of an argument with the definitions that it may refer to.
fn alone(property: &Value, root: &Value) -> Value {
    let mut fields: Map<String, Value> = property.as_object().cloned().unwrap_or_default();
    let refers = property.to_string().contains("\"$ref\"");
    for name in ["$defs", "definitions", "$schema"] {
        if let Some(definitions) = root.get(name).filter(|_| refers) {
            fields.entry(name).or_insert_with(|| definitions.clone());
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_texts_json_or_either() {
        let root = json!({"$defs": {"unit": {"enum": ["c", "f"]}, "loop": {"$ref": "#/$defs/loop"},
            "wide": {"anyOf": (0..50).map(|_| json!({"$ref": "#/$defs/wide"})).collect::<Vec<_>>()}}});
        for (schema, expected) in [
            (json!({"type": "string", "minLength": 1}), Kind::Text),
            (json!({"$ref": "#/$defs/unit"}), Kind::Text),
            (json!({"const": 5}), Kind::Json),
            (json!({"enum": ["a", 1]}), Kind::Either),
            (json!({"type": ["integer", "null"]}), Kind::Json),
            (json!({"type": ["string", "null"]}), Kind::Either),
            (json!({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/unit"}]}), Kind::Text),
            (json!({"anyOf": [{"type": "array"}, {"type": "null"}]}), Kind::Json),
            (json!({"$ref": "#/$defs/loop"}), Kind::Either),
            (json!({"$ref": "#/$defs/wide"}), Kind::Either),
            (json!({}), Kind::Either),
        ] {
            assert_eq!(Schemas::new(&root).kind(&schema), expected, "{schema}");
        }
        let optional = json!({"anyOf": [{"type": "string"}, {"type": "null"}], "default": null});
        let bounded = json!({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 1}]});
        let formatted = json!({"anyOf": [{"type": "string", "format": "date"}]});
        assert!(Schemas::new(&root).has_only_types(&optional));
        assert!(!Schemas::new(&root).has_only_types(&bounded));
        assert_eq!(Schemas::new(&root).keyword_of_texts(&formatted), Some("format"));
        assert_eq!(literal("a\"\\\n"), r#""a\"\\\n""#);
    }
}

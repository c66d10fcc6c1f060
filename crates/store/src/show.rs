//! What `/api/show` and `hypura show` tell of a model. Nothing is loaded for it.

use serde::Serialize;
use serde_json::{Map, Value as Json};
use std::time::SystemTime;

use super::cache::read_headers;
use super::entry::{Details, ModelEntry};
use super::facts::{Capability, TensorRow, model_info, tensor_rows};
use super::settings::Message;
use super::{StoreError, entry, modelfile};

/// The answer, in the shape and order of the API. `modified_at` is left to the caller, which formats times:
/// see [`Self::modified`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Show {
    /// All licences.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// A Modelfile that makes the same model.
    pub modelfile: String,
    /// Parameters, a line each.
    pub parameters: String,
    /// The chat template in use; empty where there is none and ChatML is assumed.
    pub template: String,
    /// The system prompt.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// As Ollama's config says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renderer: Option<String>,
    /// As Ollama's config says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parser: Option<String>,
    /// As in lists.
    pub details: Details,
    /// How conversations begin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// The metadata of the GGUF.
    pub model_info: Map<String, Json>,
    /// The metadata of its projector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projector_info: Option<Map<String, Json>>,
    /// The tensors, when everything was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<TensorRow>>,
    /// What it can do.
    pub capabilities: Vec<Capability>,
    /// When it was made.
    #[serde(skip)]
    pub modified: SystemTime,
    /// The version of Ollama that it wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
}

impl Show {
    /// Tells all about a model; `verbose` adds long arrays and tensors, which reads the header again.
    ///
    /// # Errors
    /// When the header cannot be read any more.
    pub fn of(entry: &ModelEntry, verbose: bool) -> Result<Self, StoreError> {
        let (info, tensors) = if verbose {
            let (gguf, _) =
                read_headers(&entry.files).map_err(|error| entry::broken(&entry.name)(error.into()))?;
            (model_info(&gguf.metadata, entry.facts.parameters, true), Some(tensor_rows(&gguf)))
        } else {
            (entry.facts.model_info.clone(), None)
        };
        Ok(Self {
            license: entry.settings.licenses.join("\n"),
            modelfile: modelfile::written(entry),
            parameters: parameter_lines(&entry.settings.parameters),
            template: entry.used_template().unwrap_or_default().to_owned(),
            system: entry.settings.system.clone().unwrap_or_default(),
            renderer: entry.settings.renderer.clone(),
            parser: entry.settings.parser.clone(),
            details: entry.details(),
            messages: entry.settings.messages.clone(),
            model_info: info,
            projector_info: entry.projector_facts.as_ref().map(|facts| facts.model_info.clone()),
            tensors,
            capabilities: entry.capabilities(),
            modified: entry.modified,
            requires: entry.settings.requires.clone(),
        })
    }
}

impl ModelEntry {
    /// Its tensors. Reads its headers again, which takes a while for large vocabularies.
    ///
    /// # Errors
    /// When they cannot be read any more.
    pub fn tensors(&self) -> Result<Vec<TensorRow>, StoreError> {
        let read = read_headers(&self.files).map_err(|error| entry::broken(&self.name)(error.into()));
        Ok(tensor_rows(&read?.0))
    }
}

/// `key` padded to 30 and its value, texts in quotes; a list is a line for each item.
#[must_use]
pub fn parameter_lines(parameters: &Map<String, Json>) -> String {
    let mut keys: Vec<&String> = parameters.keys().collect();
    keys.sort();
    let mut lines = Vec::new();
    for key in keys {
        match parameters.get(key) {
            Some(Json::Array(items)) => lines.extend(items.iter().map(|item| format!("{key:<30} {item}"))),
            Some(Json::Null) | None => {}
            Some(value) => lines.push(format!("{key:<30} {}", plain(value))),
        }
    }
    lines.join("\n")
}

/// A number without the `.0` that JSON may carry.
fn plain(value: &Json) -> String {
    match value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15) {
        Some(number) => format!("{number:.0}"),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_lines_that_clients_can_take_apart() {
        let parameters = serde_json::json!({
            "stop": ["<|end|>", "a \"b\""], "num_ctx": 131_072, "temperature": 0.7, "top_k": 40.0, "use_mmap": true
        });
        let expected = "num_ctx                        131072\n\
                        stop                           \"<|end|>\"\n\
                        stop                           \"a \\\"b\\\"\"\n\
                        temperature                    0.7\n\
                        top_k                          40\n\
                        use_mmap                       true";
        assert_eq!(parameter_lines(parameters.as_object().unwrap()), expected);
        assert_eq!(parameter_lines(&Map::new()), "");
    }
}

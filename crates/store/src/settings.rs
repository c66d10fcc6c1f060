//! What a Modelfile sets beside the weights: in a manifest each of it is a layer, or a field of the config.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::layout::{Config, Layer, Layout};
use super::unusable::Unusable;

/// A message that every conversation with a model begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    #[serde(default)]
    pub content: String,
}

/// What was set for a model when it was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSettings {
    /// The chat template that replaces that of the GGUF.
    pub template: Option<String>,
    /// Whether that was given when the model was made here. One in Go's language that came with a model of
    /// Ollama's says what the GGUF's own says in Jinja, which then counts.
    pub template_is_own: bool,
    /// The system prompt.
    pub system: Option<String>,
    /// Options for every request (`num_ctx`, `stop`, …).
    pub parameters: Map<String, Json>,
    /// How every conversation begins.
    pub messages: Vec<Message>,
    /// Licences.
    pub licenses: Vec<String>,
    /// As Ollama's config says.
    pub renderer: Option<String>,
    /// As Ollama's config says.
    pub parser: Option<String>,
    /// The version of Ollama that it wants.
    pub requires: Option<String>,
}

impl ModelSettings {
    /// What the layers and the config of a manifest say. Kinds of layers that newer programs may add say
    /// nothing to us.
    pub(super) fn of_layers(layout: &Layout, layers: &[Layer], config: Config) -> Result<Self, Unusable> {
        let Config { renderer, parser, requires, hypura_own_template, .. } = config;
        let template_is_own = hypura_own_template;
        let mut settings = Self { renderer, parser, requires, template_is_own, ..Self::default() };
        for layer in layers {
            match layer.kind() {
                "template" | "prompt" => settings.template = Some(layout.text(layer)?),
                "system" => settings.system = Some(layout.text(layer)?),
                "license" => settings.licenses.push(layout.text(layer)?),
                "params" => settings.parameters = layout.json(layer)?,
                "messages" => settings.messages = layout.json(layer)?,
                _ => {}
            }
        }
        Ok(settings)
    }

    /// The layers that say this: kinds and contents.
    pub(super) fn layers(&self) -> Vec<(&'static str, String)> {
        let mut layers = Vec::new();
        for (kind, text) in [("template", &self.template), ("system", &self.system)] {
            layers.extend(text.clone().filter(|text| !text.is_empty()).map(|text| (kind, text)));
        }
        if !self.parameters.is_empty() {
            layers.push(("params", json!(self.parameters).to_string()));
        }
        if !self.messages.is_empty() {
            layers.push(("messages", json!(self.messages).to_string()));
        }
        layers.extend(self.licenses.iter().map(|license| ("license", license.clone())));
        layers
    }
}

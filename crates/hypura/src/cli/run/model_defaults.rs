//! What a stored model sets as defaults, for a model that is loaded here. A server does the same itself.

use serde_json::{Map, Value};

use super::conversation::Message;
use hypura_store::ModelEntry;

/// The defaults. None, for plain files.
#[derive(Clone, Debug, Default)]
pub(super) struct ModelDefaults {
    /// Options of the sampler, in the words of the API.
    pub parameters: Map<String, Value>,
    /// `num_ctx`
    pub context: Option<u32>,
    /// `num_predict`
    pub max_tokens: Option<u32>,
    /// `stop`
    pub stops: Vec<String>,
    /// How every conversation begins: the system prompt, then messages.
    pub beginning: Vec<Message>,
    /// A chat template in Jinja that replaces the model's own. One in Go's language describes the same format
    /// for Ollama only, so the model's own counts.
    pub template: Option<String>,
}

impl ModelDefaults {
    pub fn of(entry: Option<ModelEntry>) -> Self {
        let Some(entry) = entry else { return Self::default() };
        let whole = |key: &str| {
            let number = entry.settings.parameters.get(key).and_then(Value::as_f64)?;
            // Negative numbers mean "no limit".
            (number >= 1.0 && number <= f64::from(u32::MAX)).then_some(number as u32)
        };
        let stops = match entry.settings.parameters.get("stop") {
            Some(Value::Array(items)) => {
                items.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
            }
            Some(Value::String(text)) => vec![text.clone()],
            _ => Vec::new(),
        };
        let system = entry.settings.system.clone().filter(|text| !text.is_empty());
        let system = system.map(|content| Message { role: "system", content, media: Vec::new() });
        let messages = entry.settings.messages.iter().map(|message| Message {
            role: match message.role.as_str() {
                "system" => "system",
                "assistant" => "assistant",
                _ => "user",
            },
            content: message.content.clone(),
            media: Vec::new(),
        });
        Self {
            context: whole("num_ctx"),
            max_tokens: whole("num_predict"),
            stops,
            beginning: system.into_iter().chain(messages).collect(),
            template: entry.own_jinja().map(ToOwned::to_owned),
            parameters: entry.settings.parameters,
        }
    }
}

//! What a stored model sets as defaults, for a model that is loaded here. A server does the same itself.

use serde_json::{Map, Value};
use std::borrow::Cow;

use super::conversation::Message;
use crate::cli::flags::whole_parameter;
use hypura_store::ModelEntry;

/// The defaults. None, for plain files.
#[derive(Clone, Debug, Default)]
pub(super) struct ModelDefaults {
    /// Options of the sampler, in the words of the API.
    pub parameters: Map<String, Value>,
    /// `num_predict`
    pub max_tokens: Option<u32>,
    /// `stop`
    pub stops: Vec<String>,
    /// How every conversation begins: the system prompt, then messages.
    pub beginning: Vec<Message>,
    /// A chat template in Jinja that replaces the model's own.
    pub template: Option<String>,
}

impl ModelDefaults {
    pub fn of(entry: Option<ModelEntry>) -> Self {
        let Some(entry) = entry else { return Self::default() };
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
            // Negative numbers mean "no limit".
            max_tokens: whole_parameter(&entry, "num_predict"),
            stops,
            beginning: system.into_iter().chain(messages).collect(),
            template: entry.own_jinja().map(Cow::into_owned),
            parameters: entry.settings.parameters,
        }
    }
}

//! What `/set` sets, for one conversation.

use serde_json::{Map, Value};

use super::command::Setting;
use crate::cli::run::screen::View;

/// The settings of a conversation. What is not set is as flags and the model have it.
#[derive(Clone, Debug)]
pub(in crate::cli::run) struct ChatSettings {
    /// Parameters, in the words of the API.
    pub parameters: Map<String, Value>,
    /// Instead of the model's own system prompt.
    pub system: Option<String>,
    /// `json`, or a schema.
    pub format: Option<Value>,
    /// A switch, or how much.
    pub think: Option<Value>,
    /// Tell more of what an answer cost.
    pub verbose: bool,
    /// How answers look.
    pub view: View,
}

impl ChatSettings {
    /// As flags have it.
    pub fn new(verbose: bool, view: View) -> Self {
        Self { parameters: Map::new(), system: None, format: None, think: None, verbose, view }
    }

    /// Sets it. Gives what to say of that. What is typed is remembered elsewhere.
    pub(super) fn set(&mut self, setting: Setting) -> String {
        let on = |on: bool| if on { "on" } else { "off" };
        match setting {
            Setting::Parameter(name, None) => {
                self.parameters.remove(&name);
                format!("{name} is as the model has it.")
            }
            Setting::Parameter(name, Some(value)) => {
                let told = format!("{name} is {value}.");
                self.parameters.insert(name, value);
                told
            }
            Setting::System(text) => {
                self.system = Some(text);
                "The system prompt is set.".to_owned()
            }
            Setting::Format(format) => {
                self.format = format;
                if self.format.is_some() { "Answers are JSON." } else { "Answers are text." }.to_owned()
            }
            Setting::Think(think) => {
                let thinks = think.as_ref().is_some_and(|value| *value != Value::Bool(false));
                self.think = think;
                if thinks { "The model thinks first." } else { "The model does not think first." }.to_owned()
            }
            Setting::Verbose(verbose) => {
                self.verbose = verbose;
                format!("Timings and tiers are {}.", on(verbose))
            }
            Setting::WordWrap(wrap) => {
                self.view.wrap = wrap;
                format!("Word wrap is {}.", on(wrap))
            }
            Setting::Markdown(markdown) => {
                self.view.markdown = markdown;
                format!("Markdown is {}.", on(markdown))
            }
            Setting::History(keep) => {
                format!("What is typed is {}remembered.", if keep { "" } else { "not " })
            }
        }
    }

    /// The parameters, a line each, as `/show parameters` shows them.
    pub fn parameter_lines(&self) -> String {
        let lines = self.parameters.iter().map(|(name, value)| format!("{name:<30} {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

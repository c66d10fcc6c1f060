//! What an agent is pointed at: the running server and one of its models.

use serde_json::{Value, json};

use super::agent::Agent;
use super::choose;
use super::context::{self, ENOUGH, LEAST};
use crate::cli::failure::complain;
use crate::cli::models::running_server;
use crate::client::{Client, ClientError};

/// A key for servers that ask for none; most agents insist on one.
const NO_KEY: &str = "hypura";

/// What the person asked for.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub model: Option<&'a str>,
    pub context: Option<u32>,
    pub agent: Agent,
}

/// A server and a model there.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `http://127.0.0.1:11434`
    pub url: String,
    key: Option<String>,
    pub model: String,
    /// What conversations may have at most.
    pub context_tokens: u32,
    pub sees: bool,
    pub thinks: bool,
    pub calls_tools: bool,
}

impl Target {
    /// Finds the server, asks for the model if need be, and tells how much context it has.
    ///
    /// # Errors
    /// When no server of ours runs, it has no such model, or the model cannot answer.
    pub fn find(asked: &Asked<'_>) -> anyhow::Result<Self> {
        let client = running_server()?;
        let model = match asked.model {
            Some(model) => model.to_owned(),
            None => choose::model(&client, asked.agent)?,
        };
        let show = client.post("/api/show", &json!({"model": model})).map_err(|error| match error {
            ClientError::Refused { status: 404, .. } => anyhow::anyhow!(
                "the server at {} has no model {model}: `hypura list` shows what it has, `hypura pull` brings others",
                client.address()
            ),
            error => error.into(),
        })?;
        if !has(&show, "completion") {
            anyhow::bail!("{model} makes vectors, it cannot answer: choose another model");
        }
        let mut target = Self {
            url: client.address(),
            key: client.key().map(ToOwned::to_owned),
            context_tokens: asked.context.unwrap_or_else(|| trained(&show)),
            sees: has(&show, "vision"),
            thinks: has(&show, "thinking"),
            calls_tools: has(&show, "tools"),
            model,
        };
        if asked.context.is_none() {
            target.recommend(&client);
        }
        if asked.agent.needs_tools() && !target.calls_tools {
            complain(&format!(
                "note: {} calls no tools, without which {} can do little",
                target.model,
                asked.agent.title()
            ));
        }
        Ok(target)
    }

    /// A target for tests.
    #[cfg(test)]
    pub fn example(key: Option<&str>) -> Self {
        Self {
            url: "http://127.0.0.1:11434".to_owned(),
            key: key.map(ToOwned::to_owned),
            model: "qwen3-coder:30b".to_owned(),
            context_tokens: 65536,
            sees: true,
            thinks: true,
            calls_tools: true,
        }
    }

    /// Where OpenAI's protocol is spoken.
    pub fn openai_url(&self) -> String {
        format!("{}/v1", self.url)
    }

    /// The key, or something in its place.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(NO_KEY)
    }

    /// The key, if the server asks for one.
    pub fn secret(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What an agent may ask to be written at once.
    pub fn most_output_tokens(&self) -> u32 {
        (self.context_tokens / 4).clamp(1, 16384)
    }

    /// Lowers the context to what the plan of the model allows, and says what that means.
    fn recommend(&mut self, client: &Client) {
        let trained = self.context_tokens;
        let planned = client.is_local().then(|| context::planned(&self.model, trained)).flatten();
        if let Some(planned) = planned {
            self.context_tokens = planned.tokens.min(trained);
            eprintln!("{}", planned.text(&self.model));
        }
        let tokens = self.context_tokens;
        if tokens < LEAST {
            let way = match tokens < trained {
                true => "give `hypura serve` more --memory, or take a smaller model",
                false => "take a model that was trained for more",
            };
            complain(&format!(
                "note: a context of {tokens} tokens is short for agents, whose first prompts alone have 10,000 to \
                 20,000; {LEAST} do, {ENOUGH} are better: {way}"
            ));
        }
    }
}

fn has(show: &Value, capability: &str) -> bool {
    show["capabilities"].as_array().is_some_and(|all| all.contains(&capability.into()))
}

/// The length of training; where nothing is known of it, as much as agents want.
fn trained(show: &Value) -> u32 {
    let info = show["model_info"].as_object();
    let lengths = info.into_iter().flatten().filter(|(key, _)| key.ends_with(".context_length"));
    let length = lengths.filter_map(|(_, value)| value.as_u64()).next();
    length.and_then(|length| u32::try_from(length).ok()).filter(|length| *length > 0).unwrap_or(ENOUGH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_training_is_that_of_the_architecture() {
        let show = json!({"model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40960}});
        assert_eq!(trained(&show), 40960);
        assert_eq!(trained(&json!({})), ENOUGH);
        assert_eq!(trained(&json!({"model_info": {"x.context_length": 0}})), ENOUGH);
    }
}

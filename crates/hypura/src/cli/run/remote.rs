//! `hypura run` over a running server, so that a model is loaded once for everybody.
//!
//! Used when a server of ours runs, knows the model, and nothing was asked for that only a model of one's own
//! can give (`--memory`, `--residency`, `--stats-json` …, or `--local`).

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hypura_engine::media::{MediaFile, Modalities};
use serde_json::{Map, Value, json};
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::args::Args;
use super::chat::{ChatSettings, Loaded, Part, Speaker, first, talk};
use super::conversation::{Message, Prompt};
use super::embedder;
use super::prompt::{self, Input};
use super::screen::{Output, Thinking};
use crate::cli::interrupt::Interrupt;
use crate::cli::models::{summary, tiers};
use crate::cli::style::Style;
use crate::client::{Client, ClientError};
use hypura_store::Store;

/// A server and the name of the model there.
#[derive(Debug)]
pub(super) struct Remote {
    client: Client,
    model: String,
    /// What it can be shown there.
    modalities: Modalities,
}

/// Finds the server to use, if there is one to use.
///
/// # Errors
/// When a server runs and fails.
pub(super) fn find(args: &Args) -> anyhow::Result<Option<Remote>> {
    if args.local || !suits(args) {
        return Ok(None);
    }
    let Some(client) = Client::find() else { return Ok(None) };
    let Some((model, show)) = served(&client, args)? else { return Ok(None) };
    Remote::of(client, model, &show).map(Some)
}

impl Remote {
    /// A model of which the server says this.
    fn of(client: Client, model: String, show: &Value) -> anyhow::Result<Self> {
        let can = |what: &str| show["capabilities"].as_array().is_some_and(|all| all.contains(&what.into()));
        if !can("completion") && can("embedding") {
            return Err(embedder::refused(model));
        }
        let modalities = Modalities { pictures: can("vision"), sounds: can("audio") };
        Ok(Self { client, model, modalities })
    }
}

/// Whether the server calls a model so; what has no tag is `latest`.
fn same_name(listed: &Value, asked: &str) -> bool {
    let listed = listed.as_str().unwrap_or_default();
    listed == asked || listed.strip_suffix(":latest") == Some(asked)
}

fn suits(args: &Args) -> bool {
    args.model.suits_a_server()
        && !args.ignore_eos
        && args.stats_json.is_none()
        && !args.logits_hash
        && args.routes.is_none()
}

/// What the server calls the model, and says of it. A file is known by the digest of its header.
fn served(client: &Client, args: &Args) -> anyhow::Result<Option<(String, Value)>> {
    let show = |name: &str| client.post("/api/show", &json!({"model": name}));
    let path = &args.model.model;
    if path.is_file() {
        let Ok(digest) = Store::of_environment().file_digest(path) else { return Ok(None) };
        let tags = client.get("/api/tags")?;
        let model = tags["models"].as_array().into_iter().flatten().find(|model| model["digest"] == digest);
        let Some(name) = model.and_then(|model| model["name"].as_str()) else { return Ok(None) };
        return Ok(Some((name.to_owned(), show(name)?)));
    }
    let Some(name) = path.to_str() else { return Ok(None) };
    match show(name) {
        Ok(said) => Ok(Some((name.to_owned(), said))),
        // It may still be a file, or the store may say what is wrong with it.
        Err(ClientError::Refused { status: 400 | 404, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Answers one prompt, or talks.
///
/// # Errors
/// Whatever stands in the way of an answer.
pub(super) fn execute(args: &Args, remote: Remote) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let input = prompt::input(args.prompt.as_deref())?;
    let media = args.media(remote.modalities)?;
    let mut options = args.sampling.api_options();
    for (key, value) in [("num_predict", args.max_tokens), ("num_ctx", args.model.ctx)] {
        if let Some(value) = value {
            options.insert(key.to_owned(), value.into());
        }
    }
    let mut speaker = Talker { remote, interrupt, options, stopped: false };
    let settings = args.chat_settings();
    match input {
        Input::Text(text) => {
            let prompt = first(args.raw, text, media, speaker.modalities())?;
            speaker.say(&prompt, &settings)?;
            Ok(if speaker.stopped { Interrupt::exit_code() } else { ExitCode::SUCCESS })
        }
        // Another model is the server's to load: the conversation ends when the person leaves.
        Input::Terminal => talk(&mut speaker, args.raw, media, settings).map(|_| ExitCode::SUCCESS),
    }
}

struct Talker {
    remote: Remote,
    interrupt: Interrupt,
    options: Map<String, Value>,
    /// Whether Ctrl-C ended the last answer.
    stopped: bool,
}

impl Speaker for Talker {
    fn greeting(&self) -> String {
        let Remote { client, model, .. } = &self.remote;
        format!("{model}, on the server at {}. /help says what there is, /bye leaves.", client.address())
    }

    /// Ctrl-C ends the answer, not the program; a second one does.
    fn say(&mut self, prompt: &Prompt, settings: &ChatSettings) -> anyhow::Result<String> {
        let (path, body) = self.request(prompt, settings);
        let mut out = Output::new(settings.view);
        let mut thinking = Thinking::default();
        let (client, interrupt) = (&self.remote.client, &self.interrupt);
        let result = interrupt.disarmed(|| -> anyhow::Result<(Value, bool)> {
            let mut answer = client.stream(path, &body)?;
            let mut last = Value::Null;
            while let Some(piece) = answer.next(&|| interrupt.raised())? {
                let message = if piece["message"].is_object() { &piece["message"] } else { &piece };
                thinking.show(message["thinking"].as_str().unwrap_or_default());
                let text =
                    message["content"].as_str().or_else(|| message["response"].as_str()).unwrap_or_default();
                if !text.is_empty() {
                    thinking.end();
                }
                out.show(text).context("cannot write the answer")?;
                if piece["done"] == true {
                    last = piece;
                    break;
                }
            }
            Ok((last, interrupt.raised()))
        });
        thinking.end();
        let ended = out.end_line();
        let (last, stopped) = result?;
        ended.context("cannot write the answer")?;
        if last.is_null() && !stopped {
            anyhow::bail!("the server at {} ended its answer early", self.remote.client.address());
        }
        self.stopped = stopped;
        let mut told = costs(&last, stopped, settings.verbose);
        if let Some(tiers) = settings.verbose.then(|| self.tiers()).flatten() {
            told.push('\n');
            told.push_str(&tiers);
        }
        let _ = writeln!(io::stderr(), "\n{}", Style::of_stderr().dim(&told));
        Ok(out.text)
    }

    /// The whole conversation goes with every request.
    fn forget(&mut self) {}

    fn modalities(&self) -> Modalities {
        self.remote.modalities
    }

    fn show(&mut self, part: Part) -> anyhow::Result<String> {
        let all = self.remote.client.post("/api/show", &json!({"model": self.remote.model}))?;
        let text = |key: &str| all[key].as_str().unwrap_or_default().to_owned();
        Ok(match part {
            Part::Info => summary(&all, false),
            Part::License => text("license"),
            Part::Modelfile => text("modelfile"),
            Part::Parameters => text("parameters"),
            Part::System => text("system"),
            Part::Template => text("template"),
        })
    }

    fn save(&mut self, name: &str, prompt: &Prompt, settings: &ChatSettings) -> anyhow::Result<()> {
        let Remote { client, model, .. } = &self.remote;
        let mut request = json!({"model": name, "from": model, "stream": false});
        if let Some(system) = &settings.system {
            request["system"] = system.as_str().into();
        }
        let parameters = self.set_options(settings);
        if !parameters.is_empty() {
            request["parameters"] = Value::Object(parameters);
        }
        let said = prompt.messages();
        if !said.is_empty() {
            // What the model began with stays its beginning.
            let shown = client.post("/api/show", &json!({"model": model}))?;
            let mut messages = shown["messages"].as_array().cloned().unwrap_or_default();
            for message in said {
                messages.push(serde_json::to_value(message)?);
            }
            request["messages"] = messages.into();
        }
        client.post("/api/create", &request)?;
        Ok(())
    }

    fn load(&mut self, name: &str) -> anyhow::Result<Loaded> {
        let show = self.remote.client.post("/api/show", &json!({"model": name}))?;
        let remote = Remote::of(self.remote.client.clone(), name.to_owned(), &show)?;
        self.remote = remote;
        Ok(Loaded::Here)
    }
}

impl Talker {
    /// Flags, and over them what the conversation has set.
    fn set_options(&self, settings: &ChatSettings) -> Map<String, Value> {
        let mut options = self.options.clone();
        options.extend(settings.parameters.clone());
        options
    }

    /// Where the server has the model now.
    fn tiers(&self) -> Option<String> {
        let loaded = self.remote.client.get("/api/ps").ok()?;
        let models = loaded["models"].as_array()?;
        let model = models.iter().find(|model| same_name(&model["name"], &self.remote.model))?;
        let mode = model["hypura"]["mode"].as_str().map(|mode| format!(", {mode}")).unwrap_or_default();
        Some(format!("tiers {}{mode}", tiers(&model["hypura"])))
    }

    fn request(&self, prompt: &Prompt, settings: &ChatSettings) -> (&'static str, Value) {
        let mut body = json!({"model": self.remote.model, "stream": true});
        let options = self.set_options(settings);
        if !options.is_empty() {
            body["options"] = Value::Object(options);
        }
        for (key, value) in [("format", &settings.format), ("think", &settings.think)] {
            if let Some(value) = value {
                body[key] = value.clone();
            }
        }
        match prompt {
            Prompt::Chat(messages) => {
                let message = |message: &Message| {
                    let mut json = json!({"role": message.role, "content": message.content});
                    if !message.media.is_empty() {
                        json["images"] = encoded(&message.media);
                    }
                    json
                };
                body["messages"] = messages.iter().map(message).collect();
                ("/api/chat", body)
            }
            Prompt::Raw(text, media) => {
                if !media.is_empty() {
                    body["images"] = encoded(media);
                }
                body["prompt"] = text.as_str().into();
                body["raw"] = true.into();
                ("/api/generate", body)
            }
        }
    }
}

fn encoded(media: &[MediaFile]) -> Value {
    media.iter().map(|file| STANDARD.encode(file.as_slice())).collect()
}

/// What an answer cost, by its last piece.
fn costs(last: &Value, stopped: bool, verbose: bool) -> String {
    if last.is_null() {
        return "stopped".to_owned();
    }
    let number = |key: &str| last[key].as_u64().unwrap_or(0);
    let seconds = |key: &str| number(key) as f64 / 1e9;
    let rate = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let (tokens, prompt) = (number("eval_count"), number("prompt_eval_count"));
    let mut text = format!(
        "{:.1} tok/s, {tokens} token{} after a prompt of {prompt}",
        rate(tokens, seconds("eval_duration")),
        if tokens == 1 { "" } else { "s" }
    );
    if last["done_reason"] == "length" {
        text.push_str("\nstopped at the length that was asked for, or at the end of the context");
    }
    if stopped {
        text.push_str("\nstopped");
    }
    if verbose {
        text.push_str(&format!(
            "\nload {:.2} s, prompt {:.2} s ({:.0} tok/s), answer {:.2} s, in all {:.2} s",
            seconds("load_duration"),
            seconds("prompt_eval_duration"),
            rate(prompt, seconds("prompt_eval_duration")),
            seconds("eval_duration"),
            seconds("total_duration"),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_told_by_the_last_piece() {
        let last = json!({"eval_count": 10, "eval_duration": 2_000_000_000_u64, "prompt_eval_count": 5, "done_reason": "length"});
        let text = costs(&last, false, false);
        assert!(
            text.starts_with("5.0 tok/s, 10 tokens after a prompt of 5\nstopped at the length"),
            "{text}"
        );
        assert_eq!(costs(&Value::Null, true, true), "stopped");
    }
}

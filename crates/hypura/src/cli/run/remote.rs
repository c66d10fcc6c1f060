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

use super::answer::{Output, harmless};
use super::args::Args;
use super::chat::{Speaker, first, talk};
use super::conversation::{Message, Prompt};
use super::embedder;
use super::prompt::{self, Input};
use crate::cli::interrupt::Interrupt;
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
    let can = |what: &str| show["capabilities"].as_array().is_some_and(|all| all.contains(&what.into()));
    if !can("completion") && can("embedding") {
        return Err(embedder::refused(model));
    }
    let modalities = Modalities { pictures: can("vision"), sounds: can("audio") };
    Ok(Some(Remote { client, model, modalities }))
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
    let mut speaker = Talker { remote, interrupt, options, verbose: args.verbose, stopped: false };
    match input {
        Input::Text(text) => {
            let prompt = first(args.raw, text, media, speaker.modalities())?;
            speaker.say(&prompt)?;
            Ok(if speaker.stopped { Interrupt::exit_code() } else { ExitCode::SUCCESS })
        }
        Input::Terminal => talk(&mut speaker, args.raw, media),
    }
}

struct Talker {
    remote: Remote,
    interrupt: Interrupt,
    options: Map<String, Value>,
    verbose: bool,
    /// Whether Ctrl-C ended the last answer.
    stopped: bool,
}

impl Speaker for Talker {
    fn greeting(&self) -> String {
        let Remote { client, model, .. } = &self.remote;
        format!("{model}, on the server at {}. /help says what there is, /bye leaves.", client.address())
    }

    /// Ctrl-C ends the answer, not the program; a second one does.
    fn say(&mut self, prompt: &Prompt) -> anyhow::Result<String> {
        let (path, body) = self.request(prompt);
        let mut out = Output::default();
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
        let _ = writeln!(io::stderr(), "\n{}", Style::of_stderr().dim(&costs(&last, stopped, self.verbose)));
        Ok(out.text)
    }

    /// The whole conversation goes with every request.
    fn forget(&mut self) {}

    fn modalities(&self) -> Modalities {
        self.remote.modalities
    }
}

impl Talker {
    fn request(&self, prompt: &Prompt) -> (&'static str, Value) {
        let mut body = json!({"model": self.remote.model, "stream": true});
        if !self.options.is_empty() {
            body["options"] = Value::Object(self.options.clone());
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

/// Reasoning, which is shown on stderr: it is no part of the answer.
#[derive(Default)]
struct Thinking {
    open: bool,
}

impl Thinking {
    fn show(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.open = true;
            let _ = write!(io::stderr(), "{}", Style::of_stderr().dim(&harmless(piece)));
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            let _ = writeln!(io::stderr(), "\n");
        }
    }
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

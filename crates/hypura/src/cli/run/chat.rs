//! A conversation on a terminal.
//!
//! Ctrl-C stops the answer and comes back to the prompt; an error of one answer does not end the conversation
//! either.

use hypura_engine::media::{MediaFile, Modalities};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::conversation::Prompt;
use super::media;
use crate::cli::failure::{complain, is_closed_pipe, one_line};
use crate::cli::style::Style;

const HELP: &str = "  /clear    begin a new conversation
  /bye      leave (so does Ctrl-D)
  /help     this
  \"\"\"       begin and end a prompt of several lines
  Ctrl-C    stop the answer";

/// Lines of history to keep.
const HISTORY_LINES: usize = 1000;
/// Begins and ends a prompt of several lines.
const FENCE: &str = "\"\"\"";

/// The prompt that a text alone makes, with its media: those that were named beside it, and those that it
/// names itself, as far as the model takes their modality.
///
/// # Errors
/// When a file that it names is not what its name says.
pub(super) fn first(
    raw: bool,
    text: String,
    media: Vec<MediaFile>,
    modalities: Modalities,
) -> anyhow::Result<Prompt> {
    let (text, media) = with_named(text, media, modalities)?;
    Ok(Prompt::empty(raw).with(text, media))
}

/// A text without the names of media in it, and the media.
fn with_named(
    text: String,
    mut media: Vec<MediaFile>,
    modalities: Modalities,
) -> anyhow::Result<(String, Vec<MediaFile>)> {
    let (text, paths) = media::named_in(&text, modalities);
    for (path, kind) in paths {
        media.push(media::read(&path, kind)?);
        eprintln!("{}", Style::of_stderr().dim(&format!("Added {} {}", kind.name(), path.display())));
    }
    Ok((text, media))
}

/// What a person typed.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Nothing,
    Bye,
    Clear,
    Help,
    Unknown(String),
    Text(String),
}

/// What answers: a model loaded in this process, or a server.
pub(super) trait Speaker {
    /// The greeting.
    fn greeting(&self) -> String;

    /// Answers on standard output, tells what that cost, and gives the text.
    ///
    /// # Errors
    /// Whatever stands in the way; the conversation can go on.
    fn say(&mut self, prompt: &Prompt) -> anyhow::Result<String>;

    /// Forgets what was said.
    fn forget(&mut self);

    /// Which media can be shown.
    fn modalities(&self) -> Modalities;
}

/// Talks until the person leaves. `media` are shown with the first thing that is said.
///
/// # Errors
/// When the terminal cannot be used.
pub(super) fn talk(
    speaker: &mut dyn Speaker,
    raw: bool,
    mut media: Vec<MediaFile>,
) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::open()?;
    let style = Style::of_stderr();
    eprintln!("{}", style.dim(&speaker.greeting()));
    let mut conversation = Prompt::empty(raw);
    loop {
        match lines.next()? {
            Typed::Nothing => {}
            Typed::Bye => return Ok(ExitCode::SUCCESS),
            Typed::Help => eprintln!("{}", style.dim(HELP)),
            Typed::Unknown(command) => {
                eprintln!("{}", style.dim(&format!("There is no {command}; what there is:\n{HELP}")));
            }
            Typed::Clear => {
                conversation = Prompt::empty(raw);
                speaker.forget();
                eprintln!("{}", style.dim("A new conversation."));
            }
            Typed::Text(text) => {
                let said = with_named(text, media.clone(), speaker.modalities()).and_then(|(text, media)| {
                    let next = conversation.with(text, media);
                    Ok((speaker.say(&next)?, next))
                });
                match said {
                    Ok((text, next)) => {
                        conversation = next.answered(&text);
                        media.clear();
                        eprintln!();
                    }
                    Err(error) if is_closed_pipe(&error) => return Err(error),
                    // The prompt that failed is forgotten, so that the next one has a chance.
                    Err(error) => complain(&one_line(&error)),
                }
            }
        }
    }
}

/// The line editor with its history.
struct Lines {
    editor: Editor<(), FileHistory>,
    history: Option<PathBuf>,
}

impl Lines {
    fn open() -> anyhow::Result<Self> {
        let config = Config::builder().max_history_size(HISTORY_LINES)?.auto_add_history(true).build();
        let mut editor = Editor::with_config(config)?;
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none; a broken one is replaced when this conversation is saved.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history })
    }

    fn next(&mut self) -> anyhow::Result<Typed> {
        let mut prompt = ">>> ";
        let mut text = String::new();
        loop {
            match self.editor.readline(prompt) {
                Ok(line) => {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(&line);
                }
                Err(ReadlineError::Interrupted) if text.is_empty() => {
                    eprintln!("{}", Style::of_stderr().dim("Ctrl-D or /bye leaves."));
                    return Ok(Typed::Nothing);
                }
                Err(ReadlineError::Interrupted) => return Ok(Typed::Nothing),
                Err(ReadlineError::Eof) => return Ok(Typed::Bye),
                Err(error) => return Err(error.into()),
            }
            if !is_open(&text) {
                self.save();
                return Ok(understand(&text));
            }
            prompt = "... ";
        }
    }

    /// History is a convenience: that it cannot be kept is no reason to disturb a conversation.
    fn save(&mut self) {
        if let Some(path) = &self.history {
            let folder = |folder| DirBuilder::new().recursive(true).mode(0o700).create(folder);
            let _ = path.parent().map(folder);
            // For its owner alone from the first byte on; the editor keeps the mode of a file that is there.
            let _ = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            let _ = self.editor.save_history(path);
        }
    }
}

/// Whether a prompt of several lines has begun and not ended.
fn is_open(text: &str) -> bool {
    let Some(rest) = text.trim_start().strip_prefix(FENCE) else { return false };
    !rest.trim_end().ends_with(FENCE)
}

fn understand(text: &str) -> Typed {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix(FENCE) {
        let inner = rest.strip_suffix(FENCE).unwrap_or(rest).trim_matches('\n');
        return if inner.trim().is_empty() { Typed::Nothing } else { Typed::Text(inner.to_owned()) };
    }
    let is_command =
        text.strip_prefix('/').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphabetic() || b == b'?'));
    match text {
        "" => Typed::Nothing,
        "/bye" | "/exit" | "/quit" => Typed::Bye,
        "/clear" => Typed::Clear,
        "/help" | "/?" => Typed::Help,
        _ if is_command => Typed::Unknown(text.to_owned()),
        _ => Typed::Text(text.to_owned()),
    }
}

/// `$XDG_STATE_HOME/hypura/history`, by default in `~/.local/state` (XDG Base Directory Specification).
fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("hypura/history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_text() {
        assert_eq!(understand(" /bye "), Typed::Bye);
        assert_eq!(understand("/clear"), Typed::Clear);
        assert_eq!(understand("/?"), Typed::Help);
        assert_eq!(understand("/cler"), Typed::Unknown("/cler".to_owned()));
        assert_eq!(understand("/etc/hosts is what?"), Typed::Text("/etc/hosts is what?".to_owned()));
        assert_eq!(understand("  "), Typed::Nothing);
        assert_eq!(understand(" hi "), Typed::Text("hi".to_owned()));
    }

    #[test]
    fn fences_make_prompts_of_several_lines() {
        assert!(is_open("\"\"\"one") && is_open("\"\"\"") && !is_open("one \"\"\""));
        assert!(!is_open("\"\"\"one\ntwo\"\"\"") && !is_open("\"\"\"one\"\"\" "));
        assert_eq!(understand("\"\"\"\n  one\n\ntwo\n\"\"\""), Typed::Text("  one\n\ntwo".to_owned()));
        assert_eq!(understand("\"\"\"/bye\"\"\""), Typed::Text("/bye".to_owned()));
        assert_eq!(understand("\"\"\"\n\"\"\""), Typed::Nothing);
    }
}

//! The line editor with its history, which is for its owner alone.

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use super::command::{Typed, is_open, understand};
use crate::cli::style::Style;

/// Lines of history to keep.
const HISTORY_LINES: usize = 1000;

/// The editor.
pub(super) struct Lines {
    editor: Editor<(), FileHistory>,
    history: Option<PathBuf>,
}

impl Lines {
    /// With what was typed before.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub fn open() -> anyhow::Result<Self> {
        let config = Config::builder().max_history_size(HISTORY_LINES)?.auto_add_history(true).build();
        let mut editor = Editor::with_config(config)?;
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none; a broken one is replaced when this conversation is saved.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history })
    }

    /// From now on what is typed is remembered, or not.
    pub fn remember(&mut self, remember: bool) {
        use rustyline::config::Configurer as _;
        self.editor.set_auto_add_history(remember);
        self.history = history_file().filter(|_| remember);
    }

    /// What is typed next.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub fn next(&mut self) -> anyhow::Result<Typed> {
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

/// `$XDG_STATE_HOME/hypura/history`, by default in `~/.local/state` (XDG Base Directory Specification).
fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("hypura/history"))
}

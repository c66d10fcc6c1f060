//! The agents and editors that can be launched: their names, and where their programs are found.

use anyhow::Context as _;
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// An agent or an editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Agent {
    /// Claude Code
    Claude,
    /// Codex
    Codex,
    /// opencode
    Opencode,
    /// Cline
    Cline,
    /// Continue
    Continue,
    /// aider
    Aider,
    /// Zed
    Zed,
    /// Visual Studio Code, with Copilot Chat
    #[value(alias = "code")]
    Vscode,
    /// GitHub Copilot CLI
    Copilot,
    /// goose
    Goose,
    /// Qwen Code
    Qwen,
    /// Pi
    Pi,
    /// Droid
    Droid,
}

/// What is fixed about an agent.
struct Facts {
    name: &'static str,
    title: &'static str,
    /// What its program may be called.
    programs: &'static [&'static str],
    /// Where installers put it beyond the search path, from the home folder.
    elsewhere: &'static [&'static str],
    install: &'static str,
}

impl Agent {
    const fn facts(self) -> Facts {
        let (name, title, programs, elsewhere, install): (_, _, &[&str], &[&str], _) = match self {
            Self::Claude => (
                "claude",
                "Claude Code",
                &["claude"],
                &[".local/bin", ".claude/local"],
                "npm install -g @anthropic-ai/claude-code",
            ),
            Self::Codex => ("codex", "Codex", &["codex"], &[".local/bin"], "npm install -g @openai/codex"),
            Self::Opencode => {
                ("opencode", "opencode", &["opencode"], &[".opencode/bin"], "npm install -g opencode-ai")
            }
            Self::Cline => ("cline", "Cline", &["cline"], &[], "npm install -g cline"),
            Self::Continue => {
                ("continue", "Continue", &["cn"], &[".local/bin"], "npm install -g @continuedev/cli")
            }
            Self::Aider => ("aider", "aider", &["aider"], &[".local/bin"], "pipx install aider-chat"),
            Self::Zed => {
                ("zed", "Zed", &["zed", "zeditor", "zedit"], &[".local/bin"], "see https://zed.dev/download")
            }
            Self::Vscode => {
                ("vscode", "Visual Studio Code", &["code"], &[], "see https://code.visualstudio.com/download")
            }
            Self::Copilot => (
                "copilot",
                "GitHub Copilot CLI",
                &["copilot"],
                &[".local/bin"],
                "npm install -g @github/copilot",
            ),
            Self::Goose => {
                ("goose", "goose", &["goose"], &[".local/bin"], "see https://block.github.io/goose")
            }
            Self::Qwen => {
                ("qwen", "Qwen Code", &["qwen"], &[".local/bin"], "npm install -g @qwen-code/qwen-code")
            }
            Self::Pi => ("pi", "Pi", &["pi"], &[], "npm install -g @earendil-works/pi-coding-agent"),
            Self::Droid => ("droid", "Droid", &["droid"], &[".local/bin"], "npm install -g @factory/cli"),
        };
        Facts { name, title, programs, elsewhere, install }
    }

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        self.facts().title
    }

    /// The usual name of its program.
    pub const fn command(self) -> &'static str {
        self.facts().programs[0]
    }

    /// Whether it works with models that call no tools: aider edits files by what the text says.
    pub const fn needs_tools(self) -> bool {
        !matches!(self, Self::Aider)
    }

    /// Its program.
    ///
    /// # Errors
    /// When it is not installed; says how it is.
    pub fn program(self) -> anyhow::Result<PathBuf> {
        let facts = self.facts();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let elsewhere = home.iter().flat_map(|home| facts.elsewhere.iter().map(|folder| home.join(folder)));
        let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(elsewhere).collect();
        found(&folders, facts.programs).with_context(|| {
            format!(
                "{} is not installed (no program `{}`): {}",
                facts.title, facts.programs[0], facts.install
            )
        })
    }
}

fn found(folders: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    let all = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    all.into_iter().find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_program_is_a_file_that_can_be_executed() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::create_dir_all(one.join("zed")).unwrap();
        fs::create_dir_all(&two).unwrap();
        fs::write(two.join("zed"), "").unwrap();
        let folders = [one, two.clone()];
        assert_eq!(found(&folders, &["zed", "zeditor"]), None);
        fs::set_permissions(two.join("zed"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(found(&folders, &["zed", "zeditor"]), Some(two.join("zed")));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for agent in Agent::value_variants() {
            let value = agent.to_possible_value().unwrap();
            assert_eq!(value.get_name(), agent.name());
        }
    }
}

//! Where agents have their files, by the variables that they look at themselves.

use anyhow::Context as _;
use std::path::{Path, PathBuf};

/// Where files are.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub home: PathBuf,
    /// `XDG_CONFIG_HOME`
    pub config: PathBuf,
    /// Our own state.
    state: PathBuf,
    /// `CLAUDE_CONFIG_DIR`
    pub claude: PathBuf,
    /// `CLINE_DATA_DIR`, or `data` in `CLINE_DIR`
    pub cline: PathBuf,
    /// `CODEX_HOME`
    pub codex: PathBuf,
    /// `PI_CODING_AGENT_DIR`
    pub pi: PathBuf,
    /// What the person set up in Visual Studio Code.
    pub vscode: PathBuf,
}

impl Places {
    /// Those of this process.
    ///
    /// # Errors
    /// Without a home folder.
    pub fn of_environment() -> anyhow::Result<Self> {
        Self::of(|name| std::env::var_os(name).map(PathBuf::from))
            .context("no home folder: set HOME, so that the files of agents can be found")
    }

    /// Those that variables name. Relative paths do not count, as the XDG specification has it.
    pub fn of(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        let home = absolute("HOME")?;
        let or = |name: &str, usual: &str| absolute(name).unwrap_or_else(|| home.join(usual));
        let config = or("XDG_CONFIG_HOME", ".config");
        let vscode = match cfg!(target_os = "macos") {
            true => home.join("Library/Application Support/Code/User"),
            false => config.join("Code/User"),
        };
        Some(Self {
            state: or("XDG_STATE_HOME", ".local/state").join("hypura/launch"),
            claude: or("CLAUDE_CONFIG_DIR", ".claude"),
            cline: absolute("CLINE_DATA_DIR").unwrap_or_else(|| or("CLINE_DIR", ".cline").join("data")),
            codex: or("CODEX_HOME", ".codex"),
            pi: or("PI_CODING_AGENT_DIR", ".pi/agent"),
            home,
            config,
            vscode,
        })
    }

    /// Where it is recorded what was changed for an agent.
    pub fn record(&self, agent: &str) -> PathBuf {
        self.state.join(format!("{agent}.json"))
    }

    /// A file of ours for an agent.
    pub fn own(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The first of these that is there, or the first.
    pub fn present(folder: &Path, names: &[&str]) -> PathBuf {
        let mut all = names.iter().map(|name| folder.join(name));
        let first = all.next().unwrap_or_else(|| folder.to_owned());
        if first.exists() { first } else { all.find(|path| path.exists()).unwrap_or(first) }
    }
}

//! The file of `--stats-json`.

use anyhow::Context as _;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::stats::Stats;

/// Where `--stats-json` goes; opened before anything long begins, so that a wrong path is reported at once.
#[derive(Debug)]
pub(super) enum StatsFile {
    Stdout,
    File { path: PathBuf, file: File },
}

impl StatsFile {
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let file = File::create(path)
            .with_context(|| format!("cannot write the statistics to {}", path.display()))?;
        Ok(Self::File { path: path.to_owned(), file })
    }

    /// Writes; in a chat the statistics of each answer replace those of the last.
    pub fn write(&mut self, stats: &Stats) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(stats)?;
        text.push('\n');
        match self {
            Self::Stdout => {
                io::stdout().lock().write_all(text.as_bytes()).context("cannot write the statistics")
            }
            Self::File { path, file } => replace(file, text.as_bytes())
                .with_context(|| format!("cannot write the statistics to {}", path.display())),
        }
    }
}

fn replace(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    // A pipe or a device can neither be rewound nor cut, and need not.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
    }
    file.write_all(bytes)
}

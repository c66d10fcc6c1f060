//! What shells and `man` want to know of the program, made from the flags themselves.

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

const NAME: &str = "hypura";

/// Arguments of `hypura completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `hypura man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for the program and one for each command into this folder [default: the program's page on
    /// the output]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Writes the completions to the output.
///
/// # Errors
/// When the output is closed.
pub fn completions(args: &CompletionArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, NAME, &mut text);
    io::stdout().lock().write_all(&text).context("cannot write the output")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes manual pages.
///
/// # Errors
/// When the folder or the output cannot be written to.
pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    let command = command.disable_help_subcommand(true);
    let Some(folder) = &args.dir else {
        io::stdout().lock().write_all(&page(command)?).context("cannot write the output")?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(command, folder)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn page(command: Command) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text).context("cannot make the page")?;
    Ok(text)
}

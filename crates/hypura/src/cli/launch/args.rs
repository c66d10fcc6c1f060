//! Flags of `hypura launch`, and the order in which things are done.

use anyhow::Context as _;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use super::agent::Agent;
use super::files::{self, Record};
use super::places::Places;
use super::point::point;
use super::setup::{FileEdit, Setup};
use super::target::{Asked, Target};
use super::{show, start};
use crate::cli::failure::{UsageError, complain};

/// Flags of `hypura launch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which agent or editor
    #[arg(value_enum, value_name = "AGENT")]
    agent: Agent,

    /// Which model it works with, as `hypura list` names it [default: asked for on a terminal]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,

    /// Context that the agent may count on [default: what the plan of the model allows]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    ctx: Option<u32>,

    /// Write the agent's configuration without starting it, so that it finds the server by itself from now on
    #[arg(long)]
    config: bool,

    /// Print what would be set and written, and change nothing
    #[arg(long, conflicts_with_all = ["config", "restore"])]
    print: bool,

    /// Give back the files of this agent as they were before
    #[arg(long, visible_alias = "undo", conflicts_with_all = ["config", "model", "ctx", "arguments"])]
    restore: bool,

    /// Change files without asking
    #[arg(short, long)]
    yes: bool,

    /// Arguments for the agent itself, after `--`
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// Starts the agent, or does what a flag says instead.
///
/// # Errors
/// When no server answers, it lacks the model, the agent is not installed, or a file cannot be changed.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let places = Places::of_environment()?;
    let record = Record::at(places.record(args.agent.name()));
    if args.restore {
        return restore(args.agent, &record);
    }
    let target = Target::find(&Asked { model: args.model.as_deref(), context: args.ctx, agent: args.agent })?;
    let setup = point(args.agent, &target, &places);
    if args.print {
        io::stdout().lock().write_all(show::setup(args.agent, &setup, &args.arguments)?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.config {
        return configure(args, &setup, &record);
    }
    let program = args.agent.program()?;
    write(args, &setup.files, &record)?;
    start::replace_this_process(&program, &setup, &args.arguments)
}

fn restore(agent: Agent, record: &Record) -> anyhow::Result<ExitCode> {
    let told = record.undo()?;
    if told.is_empty() {
        complain(&format!("note: nothing of {} was changed by `hypura launch`", agent.title()));
    }
    for line in told {
        eprintln!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes whatever has the agent find the server when somebody else starts it.
fn configure(args: &Args, setup: &Setup, record: &Record) -> anyhow::Result<ExitCode> {
    let files: Vec<FileEdit> = setup.files.iter().chain(&setup.lasting).cloned().collect();
    if setup.lasting.is_empty() && !setup.stands_in_files {
        let why = format!(
            "{} is told by variables and arguments alone: `hypura launch {name}` starts it with them, `hypura \
             launch {name} --print` shows them",
            args.agent.title(),
            name = args.agent.name()
        );
        return Err(UsageError(why).into());
    }
    write(args, &files, record)?;
    if let Some(hint) = &setup.hint {
        eprintln!("{hint}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes the files that are not yet as they shall be, after asking.
fn write(args: &Args, edits: &[FileEdit], record: &Record) -> anyhow::Result<()> {
    let changes = files::changes(edits)?;
    if changes.is_empty() {
        return Ok(());
    }
    // Files of our own name concern nobody.
    let foreign: Vec<String> = changes
        .iter()
        .filter(|change| !change.is_ours)
        .map(|change| change.path.display().to_string())
        .collect();
    if !foreign.is_empty() && !args.yes && !confirmed(args.agent, &foreign)? {
        anyhow::bail!("nothing was changed");
    }
    for line in record.apply(&changes)? {
        eprintln!("{line}");
    }
    Ok(())
}

fn confirmed(agent: Agent, paths: &[String]) -> anyhow::Result<bool> {
    let paths = paths.join(", ");
    if !io::stdin().is_terminal() {
        let why =
            format!("{} needs changes to {paths}: --yes allows them, --print shows them", agent.title());
        return Err(UsageError(why).into());
    }
    eprint!("This changes {paths} (a backup stays beside it). Go on? [Y/n] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}

//! `hypura trace`: record which experts a model uses, and ask what caches would have made of it.
//!
//! - `record`: a run, with its routes written to a file
//! - `replay`: flags, and which caches to simulate
//! - `simulate`: traces against policies and sizes, in numbers
//! - `table`: those numbers for people
//! - `figure`: those numbers as curves

mod figure;
mod record;
mod replay;
mod simulate;
mod table;

use clap::Subcommand;
use std::process::ExitCode;

/// Flags of `hypura trace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a model and write down which experts each token used
    Record(Box<record::Args>),
    /// Replay traces against caches: hit rates, and the speed to expect of a disk
    Replay(replay::Args),
}

/// Runs it.
///
/// # Errors
/// What stopped it.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Record(args) => record::execute(args),
        Command::Replay(args) => replay::execute(args),
    }
}

//! All commands: what there is, and who does it.

use clap::{CommandFactory as _, Parser, Subcommand};
use std::process::ExitCode;

use super::{
    bench, doctor, failure, iobench, launch, models, plan, profile, pull, run, runner, serve, shell, synth,
    top, trace, workers,
};

/// Runs GGUF language models that do not fit in memory, streaming their weights from the disk.
#[derive(Debug, Parser)]
#[command(name = "hypura", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a model: answer a prompt, or chat on a terminal
    Run(run::Args),
    /// Serve models to programs that talk to Ollama, OpenAI or Anthropic
    Serve(serve::Args),
    /// Offer the memory of this machine to others that are paired with it
    Worker(workers::WorkerArgs),
    /// List the workers that can be reached, or pair with one
    Workers(workers::ListArgs),
    /// A process for one session, started by a worker
    #[command(hide = true)]
    WorkerSession(workers::SessionArgs),
    /// Download a model, after telling what it will do here; continues what was interrupted
    Pull(pull::Args),
    /// Start a coding agent or an editor that works with a model of the running server
    Launch(launch::Args),
    /// A process for one model, started by a server
    #[command(hide = true)]
    Runner,
    /// List the models of this machine: Hypura's own, and those of Ollama, Hugging Face and LM Studio
    #[command(alias = "ls")]
    List(models::ListArgs),
    /// Show what is known of a model, without loading it
    Show(models::ShowArgs),
    /// List the models that the server has loaded
    Ps(models::PsArgs),
    /// Watch how the server does: memory, speeds, bytes, queue, a map of experts
    Top(top::Args),
    /// Have the server unload a model
    Stop(models::StopArgs),
    /// Give a model a second name
    Cp(models::CopyArgs),
    /// Delete models of Hypura's own store and of Hugging Face's cache, or partial downloads
    Rm(models::DeleteArgs),
    /// Make a model from a Modelfile
    Create(models::CreateArgs),
    /// Write a synthetic model of a real shape, for tests and benchmarks
    Synth(synth::Args),
    /// Measure a model in several ways, in turns: speed, bytes, memory, and how close to the limit
    Bench(bench::Args),
    /// One arm of a benchmark, started by it
    #[command(hide = true)]
    BenchArm(bench::ArmArgs),
    /// Tell what a model will need and do on this machine, from its header alone: a file, a URL, or
    /// hf:org/repo:QUANT
    #[command(alias = "inspect")]
    Plan(plan::Args),
    /// Measure this machine: processor, memory, disk
    Profile(profile::Args),
    /// Look at what of this machine helps or hinders: disk, file system, memory, devices
    Doctor(doctor::Args),
    /// Measure raw reads from the disk by size, depth and reader
    Iobench(iobench::Args),
    /// Record which experts a model uses, and replay that against caches
    Trace(trace::Args),
    /// Write what a shell needs to complete commands and flags
    Completions(shell::CompletionArgs),
    /// Write the manual pages
    Man(shell::ManArgs),
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::of_clap(&error),
    };
    let result = match cli.command {
        Command::Run(args) => run::execute(&args),
        Command::Serve(args) => serve::execute(&args),
        Command::Pull(args) => pull::execute(&args),
        Command::Launch(args) => launch::execute(&args),
        Command::Runner => runner::execute(),
        Command::Worker(args) => workers::worker(&args),
        Command::Workers(args) => workers::list(&args),
        Command::WorkerSession(args) => workers::session(&args),
        Command::List(args) => models::list(&args),
        Command::Show(args) => models::show(&args),
        Command::Ps(args) => models::ps(&args),
        Command::Top(args) => top::execute(&args),
        Command::Stop(args) => models::stop(&args),
        Command::Cp(args) => models::copy(&args),
        Command::Rm(args) => models::delete(&args),
        Command::Create(args) => models::create(&args),
        Command::Synth(args) => synth::execute(&args),
        Command::Bench(args) => bench::execute(&args),
        Command::BenchArm(args) => bench::execute_arm(&args),
        Command::Plan(args) => plan::execute(&args),
        Command::Profile(args) => profile::execute(&args),
        Command::Doctor(args) => doctor::execute(&args),
        Command::Iobench(args) => iobench::execute(&args),
        Command::Trace(args) => trace::execute(&args),
        Command::Completions(args) => shell::completions(&args, Cli::command()),
        Command::Man(args) => shell::man(&args, Cli::command()),
    };
    result.unwrap_or_else(|error| failure::report(&error))
}

//! `hypura plan MODEL`: what a model will do on this machine, before it is loaded or even downloaded.
//!
//! - `advice`: the plan and the prediction
//! - `header`: the header of a model that is here, at a URL, or on Hugging Face
//! - `what_if`: the flag for other machines
//! - `report`, `json`: the answer for people and for programs

mod advice;
mod header;
mod json;
mod report;
mod what_if;

use hypura_core::plan::{Routing, Workload};
use hypura_engine::advise::AdviceSettings;
use hypura_engine::media::PlannedProjector;
use hypura_engine::profile::{Need, Wanted};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::failure::UsageError;
use super::flags::{Env, ModelFlags};
use super::profile::{disk_target, remembered};
use advice::advise_about;
use what_if::WhatIfArg;

/// Arguments of `hypura plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelFlags,

    /// Another machine than this one: disk=7GB/s,memory=64GiB,compute=2x,hits=80%
    #[arg(long, value_name = "FACTS")]
    what_if: Option<WhatIfArg>,

    /// Tokens of the prompt that speeds are predicted for
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    prompt: u32,

    /// Directory whose disk counts [default: where the model is; the current one for a model elsewhere]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Assume that every expert is chosen equally often: the worst case for a cache
    #[arg(long)]
    uniform_routing: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When the header cannot be had, or no plan works.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let what_if = args.what_if.map(|facts| facts.0).unwrap_or_default();
    what_if.check().map_err(|error| UsageError(format!("--what-if: {error}")))?;
    let load = args.model.settings(&Env::of_process())?;
    let header = header::find(&args.model)?;
    let target = match &args.dir {
        Some(dir) => dir.clone(),
        None => disk_target(header.path(), header.first_file_bytes),
    };
    // Whatever is known of this machine will do: who asks what a model needs did not ask for a measurement.
    let disk = what_if.disk_bytes_per_s.is_none();
    let remembered = remembered(&Need { target: &target, threads: load.tuning.threads, disk }, Wanted::Any)?;
    let routing = if args.uniform_routing { Routing::Uniform } else { Routing::of(&header.shape) };
    let workload = Workload { prompt_tokens: args.prompt, routing, ..Workload::default() };
    let projector = header.projector.as_ref().or(load.model.projector.as_ref());
    let projector = projector.map(|path| PlannedProjector::of(path, load.model.sequences)).transpose()?;
    let media = projector.as_ref().map(PlannedProjector::needs).unwrap_or_default();
    let settings = AdviceSettings { request: load.model.plan_request(media), workload, what_if };
    let advice = advise_about(&header, &remembered.profile, &settings, &load)
        .map_err(|error| anyhow::Error::new(error).context(format!("{} cannot be planned", header.name)))?;
    let text = if args.json {
        json::render(&header, &remembered.profile, &advice)?
    } else {
        report::render(&header, &remembered.profile, &settings, &advice)
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

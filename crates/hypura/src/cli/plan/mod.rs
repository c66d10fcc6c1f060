//! `hypura plan MODEL`: what a model will do on this machine, before it is loaded or even downloaded.
//!
//! - `context`: what becomes of a model with a context of a given length
//! - `header`: the header of a model that is here, at a URL, or on Hugging Face
//! - `what_if`: the flag for other machines
//! - `report`: the answer for people

mod args;
mod context;
mod header;
mod report;
mod what_if;

use hypura_core::plan::{Routing, Workload};
use hypura_engine::advise::{AdviceError, AdviceSettings, Subject, advise_about, document};
use hypura_engine::media::PlannedProjector;
use hypura_engine::profile::{Need, Wanted};
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::failure::UsageError;
use super::flags::Env;
use super::profile::{disk_target, remembered_with_gpu};
use super::workers;
pub use args::Args;
pub(super) use context::{ContextPlan, with_context};

/// Runs the subcommand.
///
/// # Errors
/// When the header cannot be had, or no plan works.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let what_if = args.what_if.map(|facts| facts.0).unwrap_or_default();
    what_if.check().map_err(|error| UsageError(format!("--what-if: {error}")))?;
    let mut load = args.model.settings(&Env::of_process())?;
    let mut header = header::find(&args.model)?;
    if let Some(ty) = what_if.weights {
        header.shape = header.shape_in_type(ty).ok_or(AdviceError::NoSuchWeights(ty))?;
    }
    args.model.settle_context(&mut load, header.context_tokens);
    let target = match &args.dir {
        Some(dir) => dir.clone(),
        None => disk_target(header.path(), header.first_file_bytes),
    };
    // Whatever is known of this machine will do: who asks what a model needs did not ask for a measurement.
    let disk = what_if.disk_bytes_per_s.is_none();
    let need = Need { target: &target, threads: load.tuning.threads, disk };
    let remembered = remembered_with_gpu(&need, Wanted::Any, &load.model.device)?;
    let routing = if args.uniform_routing { Routing::Uniform } else { Routing::of(&header.shape) };
    let workload = Workload { prompt_tokens: args.prompt, routing, ..Workload::default() };
    let projector = header.projector.as_ref().or(load.model.projector.as_ref());
    let projector = projector.map(|path| PlannedProjector::of(path, load.model.sequences)).transpose()?;
    let media = projector.as_ref().map(PlannedProjector::needs).unwrap_or_default();
    // As a run does: what they have free, and how fast the links are now.
    workers::open(&load.model.workers)?;
    let settings = AdviceSettings { request: load.model.plan_request(media), workload, what_if };
    let (shape, source, profile) = (&header.shape, header.source.as_ref(), &remembered.profile);
    let advice = advise_about(shape, source, profile, &settings, &load)
        .map_err(|error| anyhow::Error::new(error).context(format!("{} cannot be planned", header.name)))?;
    let text = if args.json {
        let subject = Subject { name: &header.name, shape, shards: header.shards };
        serde_json::to_string_pretty(&document(subject, profile, &advice))? + "\n"
    } else {
        report::render(&header, &remembered.profile, &settings, &advice)
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

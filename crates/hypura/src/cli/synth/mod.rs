//! `hypura synth`: write a synthetic model.
//!
//! - `args`: its command line
//! - `space`: room on the disk, looked at first
//! - `files`: names, refusals, unfinished files that never get a final name
//! - `write`: bytes made ahead of the disk, and extents shared where the file system can
//! - `report`: what was written, and the list of shapes

mod args;
mod files;
mod report;
mod space;
mod write;

use anyhow::Context as _;
use hypura_core::synth::{ProjectorKind, Shape, SynthOptions, SynthPlan};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

pub use args::Args;

use super::{failure::UsageError, interrupt::Interrupt};
use files::OutFiles;
use report::{list, summary};
use space::check_space;
use write::{share_extents, write};

/// Writes the model.
///
/// # Errors
/// When it cannot be written; nothing unfinished stays behind.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    interrupt.heed_termination()?;
    if args.list {
        return list(args.quant).map(|()| ExitCode::SUCCESS);
    }
    let (Some(shape), Some(out)) = (args.shape, args.out.as_deref()) else {
        return Err(UsageError("SHAPE and --out are needed".to_owned()).into());
    };
    let options =
        SynthOptions { seed: args.seed, layers: args.layers, ..SynthOptions::new(shape, args.quant) };
    let options = SynthOptions { shards: args.shards, unique_bytes: args.unique, ..options };
    let options = SynthOptions { table_rows: args.table_rows, ..options };
    let plan = SynthPlan::new(&options)?;
    if let Some(projector) = &args.mmproj {
        write_projector(projector, shape, args)?;
    }
    let files = OutFiles::create(&plan, out, args.force)?;
    let share = args.unique.is_some() && share_extents(&files)?;
    check_space(&plan, &files, share)?;
    let start = Instant::now();
    let Some(written) = interrupt.disarmed(|| write(&plan, &files, share, &interrupt))? else {
        drop(files);
        eprintln!("\nhypura: stopped, and removed what was written");
        return Ok(Interrupt::exit_code());
    };
    let names = files.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    let mut out = io::stdout().lock();
    for name in names {
        writeln!(out, "{}", name.display())?;
    }
    writeln!(out, "{}", summary(&plan, &written, seconds, args.unique.is_some()))?;
    Ok(ExitCode::SUCCESS)
}

fn write_projector(path: &Path, shape: Shape, args: &Args) -> anyhow::Result<()> {
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).create_new(!args.force);
    let made = options.open(path).and_then(|mut file| {
        let kind = args.mmproj_kind.unwrap_or(ProjectorKind::of(shape));
        file.write_all(&kind.file_of(shape, args.seed).map_err(io::Error::other)?)
    });
    made.with_context(|| format!("cannot write {}", path.display()))
}

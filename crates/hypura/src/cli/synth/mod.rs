//! `hypura synth`: write a synthetic model.
//!
//! - `files`: names, refusals, unfinished files that never get a final name
//! - `write`: bytes made ahead of the disk, and extents shared where the file system can

mod files;
mod write;

use anyhow::Context as _;
use hypura_core::plan::human_bytes;
use hypura_core::synth::{ProjectorKind, Quant, Shape, SynthOptions, SynthPlan};
use hypura_engine::machine;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use super::{failure::UsageError, flags::parse_bytes, interrupt::Interrupt};
use files::OutFiles;
use write::{Written, share_extents, write};

/// Flags of `hypura synth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which model's form; --list shows them
    #[arg(required_unless_present = "list")]
    shape: Option<Shape>,

    /// Quantisation of the weights
    #[arg(long, value_name = "Q", default_value_t = Quant::Q4_K)]
    quant: Quant,

    /// The file to write; with --shards the name that the numbers are added to
    #[arg(short, long, value_name = "FILE", required_unless_present = "list")]
    out: Option<PathBuf>,

    /// Chooses the weights: the same flags make the same file
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,

    /// Number of layers, if not the model's own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    layers: Option<u32>,

    /// Repeat about this many bytes instead of making all of them, and share them on the disk where the file
    /// system can
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    unique: Option<u64>,

    /// Number of files
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    shards: u32,

    /// Also write a tiny projector that suits the model
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,

    /// Its kind, if not one for images that suits the model: mlp, qwen2vl, gemma3 (images), ultravox (audio),
    /// omni (both)
    #[arg(long, value_name = "KIND", requires = "mmproj", value_parser = parse_projector)]
    mmproj_kind: Option<ProjectorKind>,

    /// Replace files that exist
    #[arg(long)]
    force: bool,

    /// Show the shapes and their sizes, and write nothing
    #[arg(long)]
    list: bool,
}

/// Writes the model.
///
/// # Errors
/// When it cannot be written; nothing unfinished stays behind.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    interrupt.heed_termination()?;
    if args.list {
        return list(args).map(|()| ExitCode::SUCCESS);
    }
    let (Some(shape), Some(out)) = (args.shape, args.out.as_deref()) else {
        return Err(UsageError("SHAPE and --out are needed".to_owned()).into());
    };
    let options =
        SynthOptions { seed: args.seed, layers: args.layers, ..SynthOptions::new(shape, args.quant) };
    let options = SynthOptions { shards: args.shards, unique_bytes: args.unique, ..options };
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

fn parse_projector(name: &str) -> Result<ProjectorKind, String> {
    ProjectorKind::parse(name).ok_or_else(|| {
        let known: Vec<&str> = ProjectorKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("one of {} is wanted", known.join(", "))
    })
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

fn summary(plan: &SynthPlan, written: &Written, seconds: f64, unique: bool) -> String {
    let total = human_bytes(plan.file_bytes());
    let rate = human_bytes((written.made_bytes as f64 / seconds.max(1e-3)) as u64);
    let parameters = people_count(plan.parameters());
    let mut text = format!("{total}, {parameters} parameters, written in {seconds:.1} s ({rate}/s)");
    if written.shared_bytes > 0 {
        text.push_str(&format!(
            "; {} of it are shared extents, the disk holds {}",
            human_bytes(written.shared_bytes),
            human_bytes(written.made_bytes)
        ));
    } else if unique {
        text.push_str(
            "; this file system shares no ranges of files (XFS, btrfs and bcachefs do; APFS only whole files), so all of \
             it was written: benchmarks/reflink-image.sh of the sources makes an XFS in a file",
        );
    }
    text
}

/// `30.5B`, as people count parameters.
fn people_count(count: u64) -> String {
    let count = count as f64;
    match count {
        _ if count >= 1e12 => format!("{:.2}T", count / 1e12),
        _ if count >= 1e9 => format!("{:.1}B", count / 1e9),
        _ => format!("{:.1}M", count / 1e6),
    }
}

fn check_space(plan: &SynthPlan, files: &OutFiles, share: bool) -> anyhow::Result<()> {
    // A file system that does not say how much is free may well have room.
    let Ok(free_bytes) = machine::free_bytes(files.folder()) else { return Ok(()) };
    match lack_of_space(&files.name(), write::bytes_to_make(plan, share), free_bytes) {
        Some(message) => anyhow::bail!(message),
        None => Ok(()),
    }
}

fn lack_of_space(name: &str, needed_bytes: u64, free_bytes: u64) -> Option<String> {
    (needed_bytes > free_bytes).then(|| {
        format!(
            "cannot write {name}: it takes {} and the file system has {} free: free some, write it elsewhere (--out), or \
             make it smaller (--layers; --unique on XFS or btrfs)",
            human_bytes(needed_bytes),
            human_bytes(free_bytes)
        )
    })
}

fn list(args: &Args) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:<18} {:>10} {:>12}", "SHAPE", "PARAMETERS", args.quant.name())?;
    for shape in Shape::ALL {
        let plan = SynthPlan::new(&SynthOptions::new(*shape, args.quant))
            .with_context(|| format!("cannot plan {shape}"))?;
        let (parameters, size) = (people_count(plan.parameters()), human_bytes(plan.file_bytes()));
        writeln!(out, "{:<18} {parameters:>10} {size:>12}", shape.name())?;
    }
    let quants: Vec<&str> = Quant::ALL.iter().map(|quant| quant.name()).collect();
    writeln!(out, "\nQuantisations (--quant): {}", quants.join(", "))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_space_is_told_with_both_numbers() {
        assert_eq!(lack_of_space("x", 1 << 30, 1 << 30), None);
        let message = lack_of_space("x.gguf", 3 << 30, 1 << 30).unwrap();
        for part in ["x.gguf", "3.00 GiB", "1.00 GiB", "--layers"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn parameters_are_counted_as_people_do() {
        assert_eq!(people_count(1_026_000_000_000), "1.03T");
        assert_eq!(people_count(30_532_000_000), "30.5B");
        assert_eq!(people_count(5_012_000), "5.0M");
    }
}

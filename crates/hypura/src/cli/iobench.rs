//! `hypura iobench`: raw reads from the disk, past the page cache.

use anyhow::Context as _;
use hypura_engine::ReaderKind;
use hypura_engine::iobench::{Pattern, ProbeConfig, measure};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::flags::parse_bytes;
use crate::bench::io::IoReport;

/// Flags of `hypura iobench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A large file (best the model itself), or a folder, in which a file is written and deleted
    #[arg(default_value = ".")]
    path: PathBuf,

    /// Request sizes, several with commas
    #[arg(long, value_delimiter = ',', default_value = "64K,256K,1M,4M", value_name = "SIZE,…", value_parser = request_size)]
    sizes: Vec<usize>,

    /// Requests at the disk at the same time, several with commas
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64", value_name = "N,…", value_parser = clap::value_parser!(u16).range(1..=256))]
    depths: Vec<u16>,

    /// Time for each combination, in milliseconds
    #[arg(long, default_value_t = 250, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    time: u64,

    /// Size of the file that is written in a folder
    #[arg(long, default_value = "2G", value_name = "SIZE", value_parser = parse_bytes)]
    scratch: u64,

    /// Write the result to standard output as JSON, instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs it.
///
/// # Errors
/// When the path cannot be read, or the folder not be written to.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let config = ProbeConfig {
        patterns: vec![Pattern::Random, Pattern::Sequential],
        readers: readers(),
        request_bytes: args.sizes.clone(),
        depths: args.depths.iter().map(|depth| usize::from(*depth)).collect(),
        cell_duration: Duration::from_millis(args.time),
        scratch_bytes: args.scratch,
        ..ProbeConfig::default()
    };
    let report = IoReport::of(&measure(&args.path, &config)?);
    let mut out = io::stdout().lock();
    if args.json {
        let json = serde_json::to_string_pretty(&report).context("cannot write the result as JSON")?;
        writeln!(out, "{json}")?;
    } else {
        write!(out, "{}", report.table())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn readers() -> Vec<ReaderKind> {
    if cfg!(target_os = "linux") {
        vec![ReaderKind::Uring, ReaderKind::Pread]
    } else {
        vec![ReaderKind::Pread]
    }
}

fn request_size(text: &str) -> Result<usize, String> {
    /// The largest that a probe reads at once.
    const MOST: u64 = 1 << 30;
    match parse_bytes(text)? {
        0 => Err("a request reads at least one byte".to_owned()),
        bytes if bytes > MOST => Err("a request reads at most 1 GiB".to_owned()),
        bytes => usize::try_from(bytes).map_err(|error| error.to_string()),
    }
}

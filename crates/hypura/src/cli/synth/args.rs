//! The command line of `hypura synth`.

use hypura_core::synth::{ProjectorKind, Quant, Shape};
use std::path::PathBuf;

use crate::cli::flags::parse_bytes;

/// Flags of `hypura synth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which model's form; --list shows them
    #[arg(required_unless_present = "list")]
    pub(super) shape: Option<Shape>,

    /// Quantisation of the weights
    #[arg(long, value_name = "Q", default_value_t = Quant::Q4_K)]
    pub(super) quant: Quant,

    /// The file to write; with --shards the name that the numbers are added to
    #[arg(short, long, value_name = "FILE", required_unless_present = "list")]
    pub(super) out: Option<PathBuf>,

    /// Chooses the weights: the same flags make the same file
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) seed: u64,

    /// Number of layers, if not the model's own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) layers: Option<u32>,

    /// Rows of each head of a table of n-grams, if not the model's own, cut as the layers are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..100_000_000))]
    pub(super) table_rows: Option<u64>,

    /// Repeat about this many bytes instead of making all of them, and share them on the disk where the file
    /// system can
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(super) unique: Option<u64>,

    /// Number of files
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) shards: u32,

    /// Also write a tiny projector that suits the model
    #[arg(long, value_name = "FILE")]
    pub(super) mmproj: Option<PathBuf>,

    /// Its kind, if not one for images that suits the model: mlp, qwen2vl, gemma3 (images), ultravox (audio),
    /// omni (both)
    #[arg(long, value_name = "KIND", requires = "mmproj", value_parser = parse_projector)]
    pub(super) mmproj_kind: Option<ProjectorKind>,

    /// Replace files that exist
    #[arg(long)]
    pub(super) force: bool,

    /// Show the shapes and their sizes, and write nothing
    #[arg(long)]
    pub(super) list: bool,
}

fn parse_projector(name: &str) -> Result<ProjectorKind, String> {
    ProjectorKind::parse(name).ok_or_else(|| {
        let known: Vec<&str> = ProjectorKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("one of {} is wanted", known.join(", "))
    })
}

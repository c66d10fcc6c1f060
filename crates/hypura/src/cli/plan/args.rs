//! The command line of `hypura plan`.

use std::path::PathBuf;

use super::what_if::WhatIfArg;
use crate::cli::flags::ModelFlags;

/// Arguments of `hypura plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) model: ModelFlags,

    /// Another machine, or another quantisation: disk=7GB/s,memory=64GiB,compute=2x,hits=80%,quant=Q8_0
    #[arg(long, value_name = "FACTS")]
    pub(super) what_if: Option<WhatIfArg>,

    /// Tokens of the prompt that speeds are predicted for
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) prompt: u32,

    /// Directory whose disk counts [default: where the model is; the current one for a model elsewhere]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,

    /// Assume that every expert is chosen equally often: the worst case for a cache
    #[arg(long)]
    pub(super) uniform_routing: bool,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

//! The command: the plan, then the download.

use anyhow::Context as _;
use hypura_store::fetch::{FetchError, RemoteName};
use hypura_store::{PullRequest, Store};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::offer::Offer;
use super::{fetch, screen};
use crate::cli::failure::UsageError;
use crate::cli::flags::{MemorySize, ModelFlags};

/// Arguments of `hypura pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// hf.co/ORG/REPO or hf.co/ORG/REPO:QUANT, NAME or NAME:TAG of Ollama's library,
    /// HOST/NAMESPACE/NAME:TAG of another registry, or the URL of a GGUF file
    model: String,

    /// Only tell which files would come, and what the model would do here
    #[arg(long)]
    dry_run: bool,

    /// Pull it although the disk has no room, or the model cannot run here
    #[arg(long)]
    force: bool,

    /// Ask registries without TLS that are not on this machine
    #[arg(long)]
    insecure: bool,

    /// Memory that the plan may use: 8GiB, 60% of the machine [default: what is free, less headroom]
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,

    /// Context that the plan is for, in tokens [default: 4096]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    ctx: Option<u32>,
}

/// Pulls it.
///
/// # Errors
/// When the name leads nowhere, the plan or the disk refuses, or the download fails.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let name = RemoteName::parse(&args.model).map_err(of_name)?;
    let store = Store::of_environment();
    let flags = ModelFlags::named(PathBuf::from(&args.model), args.memory, args.ctx);
    let request = PullRequest { name: args.model.clone(), insecure: args.insecure, force: args.force };
    match Offer::find(&store, &name, &flags, args.insecure) {
        Ok(offer) if args.dry_run => {
            let text = screen::files(&offer.model) + &screen::render(&offer);
            io::stdout().write_all(text.as_bytes()).context("cannot write the output")?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(offer) => {
            offer.show();
            if !args.force {
                offer.check()?;
            }
            fetch::fetch(&store, &request, offer.model.bytes())
        }
        // What is installed already is enough where nobody can be asked.
        Err(_) if !args.dry_run && store.resolve(&name.local_name()).is_ok() => {
            fetch::fetch(&store, &request, 0)
        }
        Err(error) => Err(error),
    }
}

/// A wrong name is wrong usage.
fn of_name(error: FetchError) -> anyhow::Error {
    match error {
        FetchError::NotARepository(_) | FetchError::NotAName(_) => UsageError(error.to_string()).into(),
        other => other.into(),
    }
}

//! `hypura workers`: the workers that were named and those of the local network; pairing with one.

use anyhow::Context as _;
use hypura_core::plan::human_bytes;
use hypura_workers::client::{Client, address_of};
use hypura_workers::code::{Code, CodeFolder};
use hypura_workers::discover;
use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::identity;
use super::open::measured;
use crate::cli::failure::complain;
use crate::cli::flags::{Env, worker_addresses};

/// How long to wait for announcements.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Arguments of `hypura workers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pair with the worker whose `hypura worker --pair` printed this code
    #[arg(long, value_name = "CODE")]
    pair: Option<String>,

    /// Workers to ask, besides those of the local network [default: HYPURA_WORKERS]
    #[arg(long = "worker", value_name = "HOST[:PORT]")]
    workers: Vec<String>,
}

/// Lists, or pairs.
///
/// # Errors
/// A code that is none; output that cannot be written. A worker that cannot be used is a line of the list.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let codes = CodeFolder::of_environment().context("there is no folder for pairing codes: set HOME")?;
    if let Some(code) = &args.pair {
        codes.add(&Code::parse(code)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut addresses: BTreeSet<String> =
        worker_addresses(&args.workers, &Env::of_process()).into_iter().map(with_port).collect();
    match discover::find(PATIENCE) {
        Ok(found) => addresses.extend(found.into_iter().map(|worker| worker.address)),
        Err(error) => complain(&format!("note: {error}")),
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<28} {:<16} {:>10} {:>10} {:>12}  VERSION",
        "ADDRESS", "NAME", "FREE", "ROUND TRIP", "LINK"
    )?;
    for address in addresses {
        match line(&address, &codes) {
            Ok(line) => writeln!(out, "{line}")?,
            Err(error) => writeln!(out, "{address:<28} {error}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// As those of the local network are written. What is no address is told in its line.
fn with_port(address: String) -> String {
    address_of(&address).unwrap_or(address)
}

fn line(address: &str, codes: &CodeFolder) -> anyhow::Result<String> {
    let mut client = Client::connect(address, codes, &identity())?;
    let link = measured(&mut client)?;
    Ok(format!(
        "{:<28} {:<16} {:>10} {:>7.2} ms {:>7.0} MB/s  {}",
        client.address,
        client.identity.name,
        human_bytes(client.offer.memory_bytes),
        link.round_trip_s * 1000.0,
        link.bytes_per_s / 1e6,
        client.identity.version,
    ))
}

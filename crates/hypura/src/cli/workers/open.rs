//! Taking workers into this process: before its first plan, and in a runner before it gives up opening
//! sockets.

use anyhow::Context as _;
use hypura_engine::crash;
use hypura_engine::workers::{WorkerLink, attach};
use hypura_workers::client::Client;
use hypura_workers::code::CodeFolder;
use std::sync::Arc;

use super::identity;

/// Exit code of a runner that lost a worker: no fault of its model's file.
const LOST: u8 = hypura_server::runner::LOST_WORKER;

/// Connects to workers, all of which must be there. Whenever one is lost from now on, the process ends with
/// one line that says so, because ggml cannot go on without it.
///
/// # Errors
/// What is wrong with the first that cannot be used.
pub fn open(addresses: &[String]) -> anyhow::Result<()> {
    for address in addresses {
        let name = address.clone();
        take(address, Box::new(move |reason| crash::end(&lost(&name, reason))))?;
    }
    Ok(())
}

/// The same in a runner, which goes on without those that cannot be used: its standard error says why.
pub fn open_in_runner(addresses: &[String]) {
    for address in addresses {
        let name = address.clone();
        let ended = move |reason: &str| {
            crash::install("", LOST);
            crash::end(&lost(&name, reason));
        };
        if let Err(error) = take(address, Box::new(ended)) {
            tracing::warn!("goes on without a worker: {error:#}");
        }
    }
}

fn lost(name: &str, reason: &str) -> String {
    format!("the worker {name} was lost: {reason}")
}

fn take(address: &str, ended: Box<dyn FnOnce(&str) + Send>) -> anyhow::Result<()> {
    let codes = CodeFolder::of_environment().context("there is no folder for pairing codes: set HOME")?;
    let mut client = Client::connect(address, &codes, &identity())?;
    let link = client.measure()?;
    let name = client.address.clone();
    let round_trip_ms = link.round_trip_s * 1000.0;
    tracing::debug!(worker = name, round_trip_ms, bytes_per_s = link.bytes_per_s, "a link");
    let session = client.open(ended)?;
    let keep = Arc::clone(&session.keep);
    attach(WorkerLink {
        socket: session.socket,
        name: name.clone(),
        budget_bytes: session.granted_bytes,
        keep: Arc::new(move |bytes| keep.set(bytes)),
    })
    .with_context(|| format!("the worker {name} cannot be used"))
}

//! Taking workers into this process: before its first plan, and in a runner before it gives up opening
//! sockets.

use anyhow::Context as _;
use hypura_core::profile::WorkerRates;
use hypura_engine::crash;
use hypura_engine::profile::{cache_folder, keep_worker};
use hypura_engine::stream::Traffic;
use hypura_engine::workers::{WorkerLink, attach};
use hypura_workers::client::Client;
use hypura_workers::code::CodeFolder;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    let rates = measured(&mut client)?;
    let name = client.address.clone();
    let session = client.open(ended)?;
    let (keep, counters) = (Arc::clone(&session.keep), Arc::clone(&session.counters));
    attach(WorkerLink {
        socket: session.socket,
        budget_bytes: session.granted_bytes,
        rates,
        keep: Arc::new(move |bytes| keep.set(bytes)),
        traffic: Arc::new(move || Traffic {
            sent_bytes: counters.sent_bytes.load(Ordering::Relaxed),
            received_bytes: counters.received_bytes.load(Ordering::Relaxed),
        }),
    })
    .with_context(|| format!("the worker {name} cannot be used"))
}

/// What a worker says of itself, and what the link to it does now. Kept beside the profile of this machine.
pub(super) fn measured(client: &mut Client) -> anyhow::Result<WorkerRates> {
    let link = client.measure()?;
    let own = client.offer.rates.as_deref().and_then(|rates| serde_json::from_str(rates).ok());
    let (round_trip_s, bytes_per_s) = (link.round_trip_s, link.bytes_per_s);
    let rates: WorkerRates =
        WorkerRates { name: client.address.clone(), round_trip_s, bytes_per_s, ..own.unwrap_or_default() };
    if let Some(folder) = cache_folder()
        && let Err(error) = keep_worker(&folder, &rates)
    {
        // It is measured again with the next connection.
        tracing::debug!(%error, "the rates of a worker are not kept");
    }
    Ok(rates)
}

//! The download itself: by the server that runs, so that its store has the model, or here. Ctrl-C stops it,
//! and what arrived stays.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::cli::interrupt::Interrupt;
use crate::cli::style::{ByteProgress, download_bar};
use crate::client::Client;
use hypura_store::{Progress, PullError, PullRequest, Store};

/// Pulls a model of about `total` bytes.
///
/// # Errors
/// Why there is no model now.
pub(super) fn fetch(store: &Store, request: &PullRequest, total: u64) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let mut shown = Shown::new(total);
    let done = interrupt.disarmed(|| match Client::find() {
        Some(client) => by_server(&client, request, &mut shown, &interrupt),
        None => here(store, request, &mut shown, &interrupt),
    })?;
    drop(shown);
    if !done {
        eprintln!("stopped; what arrived is kept: the same command continues");
        return Ok(Interrupt::exit_code());
    }
    Ok(ExitCode::SUCCESS)
}

fn here(
    store: &Store,
    request: &PullRequest,
    shown: &mut Shown,
    interrupt: &Interrupt,
) -> anyhow::Result<bool> {
    match store.pulls().pull(request, &mut |step| shown.step(&step), &|| !interrupt.raised()) {
        Ok(_) => Ok(true),
        Err(PullError::Cancelled) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn by_server(
    client: &Client,
    request: &PullRequest,
    shown: &mut Shown,
    interrupt: &Interrupt,
) -> anyhow::Result<bool> {
    let body =
        json!({"model": request.name, "insecure": request.insecure, "hypura": {"force": request.force}});
    let mut answer = client.stream("/api/pull", &body)?;
    let mut last = String::new();
    while let Some(piece) = answer.next(&|| interrupt.raised())? {
        let step = of_line(&piece);
        shown.step(&step);
        last = step.status;
    }
    if last != "success" && !interrupt.raised() {
        anyhow::bail!("the server at {} ended the pull early", client.address());
    }
    Ok(last == "success")
}

fn of_line(line: &Value) -> Progress {
    Progress {
        status: line["status"].as_str().unwrap_or_default().to_owned(),
        digest: line["digest"].as_str().map(ToOwned::to_owned),
        total: line["total"].as_u64(),
        completed: line["completed"].as_u64(),
    }
}

/// What is shown of it: one bar for all files.
struct Shown {
    bar: ByteProgress,
    total: u64,
    files: BTreeMap<String, u64>,
}

impl Shown {
    fn new(total: u64) -> Self {
        Self { bar: download_bar(), total, files: BTreeMap::new() }
    }

    fn step(&mut self, step: &Progress) {
        match (step.completed, step.total) {
            (Some(done), Some(total)) => {
                self.files.insert(step.digest.clone().unwrap_or_else(|| step.status.clone()), done);
                let done = self.files.values().sum();
                self.bar.set(done, self.total.max(total).max(done));
            }
            _ => self.bar.line(&step.status),
        }
    }
}

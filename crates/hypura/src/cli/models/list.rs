//! `hypura list`: the models of this machine.

use hypura_core::plan::human_bytes;
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::partial::{self, PartialFile};
use super::place::Place;
use super::text::{human_span, print, short_digest, table};
use hypura_server::time;
use hypura_store::{ModelEntry, Store};

/// Arguments of `hypura list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only models whose names begin so
    prefix: Option<String>,

    /// Also tell whose store each model is in, and what looks like a model but cannot be used, and why
    #[arg(short, long)]
    verbose: bool,

    /// As JSON, like /api/tags
    #[arg(long)]
    json: bool,
}

/// Lists them.
///
/// # Errors
/// When the server does not answer or the output is closed.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let place = if args.verbose { Place::Store(Store::of_environment()) } else { Place::find() };
    let (mut models, partials, notes) = match place {
        Place::Server(client) => {
            let answer = client.get("/api/tags")?;
            let models = answer["models"].as_array().cloned().unwrap_or_default();
            (models, PartialFile::of_tags(&answer), String::new())
        }
        Place::Store(store) => {
            let listing = store.list();
            let mut notes = String::new();
            for skipped in listing.skipped.iter().filter(|_| args.verbose) {
                notes.push_str(&format!(
                    "skipped ({}): {}: {}\n",
                    skipped.origin,
                    skipped.path.display(),
                    skipped.why
                ));
            }
            let partials = store.pulls().partials().iter().map(PartialFile::from).collect();
            (listing.models.iter().map(row).collect(), partials, notes)
        }
    };
    if let Some(prefix) = args.prefix.as_deref().map(str::to_ascii_lowercase) {
        let name = |model: &Value| model["name"].as_str().unwrap_or_default().to_ascii_lowercase();
        models.retain(|model| name(model).starts_with(&prefix));
    }
    if args.json {
        let text = serde_json::to_string_pretty(&serde_json::json!({"models": models}))?;
        print(&format!("{text}\n"))?;
    } else {
        print(&rendered(&models, args.verbose))?;
        eprint!("{}", partial::told(&partials));
    }
    eprint!("{notes}");
    Ok(ExitCode::SUCCESS)
}

/// A model as the API lists it, and whose store it is in.
fn row(entry: &ModelEntry) -> Value {
    let name = entry.name.to_string();
    serde_json::json!({
        "name": name,
        "model": name,
        "modified_at": time::local(entry.modified),
        "size": entry.size,
        "digest": entry.digest,
        "details": entry.details(),
        "capabilities": entry.capabilities(),
        "hypura": {"store": entry.origin.title()},
    })
}

fn rendered(models: &[Value], verbose: bool) -> String {
    let mut titles = vec!["NAME".to_owned(), "ID".to_owned(), "SIZE".to_owned(), "MODIFIED".to_owned()];
    if verbose {
        titles.push("STORE".to_owned());
    }
    let mut rows = vec![titles];
    for model in models {
        let text = |key: &str| model[key].as_str().unwrap_or_default().to_owned();
        let mut row = vec![
            text("name"),
            short_digest(&text("digest")),
            human_bytes(model["size"].as_u64().unwrap_or(0)),
            age(&text("modified_at"))
                .map_or_else(|| "?".to_owned(), |age| format!("{} ago", human_span(age))),
        ];
        if verbose {
            row.push(model["hypura"]["store"].as_str().unwrap_or_default().to_owned());
        }
        rows.push(row);
    }
    table(&rows)
}

/// How long ago a time was.
fn age(time: &str) -> Option<Duration> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(SystemTime::now().duration_since(time.into()).unwrap_or_default())
}

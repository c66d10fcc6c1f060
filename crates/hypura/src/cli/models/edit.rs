//! `hypura cp` and `hypura rm`.

use serde_json::json;
use std::process::ExitCode;

use super::place::Place;
use hypura_store::Store;

/// Arguments of `hypura cp`.
#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    /// The model
    source: String,
    /// Its second name
    destination: String,
}

/// Arguments of `hypura rm`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Their names
    #[arg(required_unless_present = "partial")]
    models: Vec<String>,

    /// Only what pulls left of models that are not whole: of these, or of all
    #[arg(long)]
    partial: bool,
}

/// Gives a model a second name.
///
/// # Errors
/// When there is no such model, or a name is none.
pub fn copy(args: &CopyArgs) -> anyhow::Result<ExitCode> {
    match Place::find() {
        Place::Server(client) => {
            let body = json!({"source": args.source, "destination": args.destination});
            client.post("/api/copy", &body)?;
        }
        Place::Store(store) => store.copy(&args.source, &args.destination)?,
    }
    eprintln!("copied '{}' to '{}'", args.source, args.destination);
    Ok(ExitCode::SUCCESS)
}

/// Deletes models.
///
/// # Errors
/// The first one that cannot be deleted.
pub fn delete(args: &DeleteArgs) -> anyhow::Result<ExitCode> {
    if args.partial {
        return delete_partial(&args.models);
    }
    let place = Place::find();
    for model in &args.models {
        match &place {
            Place::Server(client) => {
                client.delete("/api/delete", &json!({"model": model}))?;
            }
            Place::Store(store) => store.delete(model)?,
        }
        eprintln!("deleted '{model}'");
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes partial downloads that nobody continues right now. They are the same for a server of this machine.
fn delete_partial(models: &[String]) -> anyhow::Result<ExitCode> {
    let store = Store::of_environment();
    let (mut removed, mut busy) = (0, 0);
    let all = [None];
    let named: Vec<Option<&str>> = models.iter().map(|model| Some(model.as_str())).collect();
    for model in if models.is_empty() { all.as_slice() } else { &named } {
        let (gone, kept) = store.pulls().remove_partials(*model)?;
        (removed, busy) = (removed + gone, busy + kept);
    }
    eprintln!("removed {removed} partial file{}", if removed == 1 { "" } else { "s" });
    if busy > 0 {
        eprintln!("kept {busy} that {} being pulled right now", if busy == 1 { "is" } else { "are" });
    }
    Ok(ExitCode::SUCCESS)
}

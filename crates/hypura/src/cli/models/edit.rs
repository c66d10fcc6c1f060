//! `hypura cp` and `hypura rm`.

use serde_json::json;
use std::process::ExitCode;

use super::place::Place;

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
    #[arg(required = true)]
    models: Vec<String>,
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

//! `hypura run` of a model that is not here: it says what it is about to do, pulls, and goes on.

use hypura_store::fetch::{FetchError, RemoteName};
use hypura_store::{PullRequest, Store, StoreError};
use std::path::Path;
use std::process::ExitCode;

use super::fetch;
use super::offer::Offer;
use crate::cli::flags::ModelFlags;

/// Whether a model was missing.
pub(in crate::cli) enum Missing {
    /// It is here, or its name is a file's.
    No,
    /// It was, and is here now.
    Pulled,
    /// Ctrl-C stopped the pull.
    Stopped(ExitCode),
}

/// Pulls the model of these flags if its name leads nowhere on this machine, but does elsewhere.
///
/// # Errors
/// When it is neither here nor elsewhere, or would not run here.
pub(in crate::cli) fn pull_if_missing(flags: &ModelFlags) -> anyhow::Result<Missing> {
    let Some(text) = flags.model.to_str().filter(|_| !flags.model.exists()) else { return Ok(Missing::No) };
    let is_path =
        text.starts_with(['.', '/', '~']) || text.ends_with(".gguf") && !RemoteName::is_explicit(text);
    if is_path || flags.model == Path::new("demo") {
        return Ok(Missing::No);
    }
    let Ok(name) = RemoteName::parse(text) else { return Ok(Missing::No) };
    let store = Store::of_environment();
    if !matches!(store.resolve(&name.local_name()), Err(StoreError::NotFound(_))) {
        return Ok(Missing::No);
    }
    let offer = match Offer::find(&store, &name, flags, false) {
        Ok(offer) => offer,
        Err(error) if matches!(error.downcast_ref(), Some(FetchError::Offline(_))) => return Ok(Missing::No),
        Err(error) => {
            return Err(error.context(format!(
                "there is no model and no file called {text} (`hypura list` shows the models of this machine), and it \
                 cannot be pulled"
            )));
        }
    };
    offer.show();
    offer.check()?;
    let request = PullRequest { name: text.to_owned(), ..PullRequest::default() };
    let code = fetch::fetch(&store, &request, offer.model.bytes())?;
    Ok(if code == ExitCode::SUCCESS { Missing::Pulled } else { Missing::Stopped(code) })
}

//! Names and capabilities, checked before anything is loaded.

use hypura_engine::media::{MediaFile, MediaKind, probe};
use hypura_store::{Capability, ModelEntry};
use std::sync::Arc;

use crate::Failure;
use crate::job::{JobBase, Message, Think};
use crate::models::LookupError;
use crate::options::Options;
use crate::state::Server;

/// A model and what a request of it means.
#[derive(Clone)]
pub struct Found {
    /// The model.
    pub entry: Arc<ModelEntry>,
    /// The request's options over the model's own.
    pub options: Options,
}

/// Tokens at the beginning of a prompt that stay when it is cut, unless a request says otherwise.
const DEFAULT_KEEP_TOKENS: usize = 4;

impl Found {
    pub(super) fn keep_tokens(&self) -> usize {
        match self.options.num_keep {
            // All that fits: the cut then takes half of the room at most.
            Some(count) if count < 0 => usize::MAX,
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
            None => DEFAULT_KEEP_TOKENS,
        }
    }
}

/// Finds the model of a name without holding up other requests.
///
/// # Errors
/// [`LookupError`]; every endpoint has its own words for it.
pub async fn find(server: &Arc<Server>, name: &str) -> Result<Arc<ModelEntry>, LookupError> {
    let catalog = Arc::clone(&server.catalog);
    let name = name.to_owned();
    let found = tokio::task::spawn_blocking(move || catalog.resolve(&name)).await;
    found.unwrap_or_else(|_| Err(LookupError::Refused(Failure::internal("the model store failed"))))
}

/// What a name that leads nowhere answers where no endpoint has its own words.
#[must_use]
pub fn failure_of(error: LookupError, name: &str) -> Failure {
    match error {
        LookupError::Invalid => Failure::bad_request("invalid model name"),
        LookupError::NotInstalled => Failure::no_model(name),
        LookupError::Refused(failure) => failure,
    }
}

pub(super) async fn find_for(server: &Arc<Server>, base: &JobBase) -> Result<Found, Failure> {
    let entry = find(server, &base.model).await.map_err(|error| failure_of(error, &base.model))?;
    let options = base.options.clone().over(&own_options(&entry));
    Ok(Found { entry, options })
}

/// The options that were set for a model when it was made.
#[must_use]
pub fn own_options(entry: &ModelEntry) -> Options {
    Options::of_json(&entry.settings.parameters).unwrap_or_else(|why| {
        tracing::warn!(model = %entry.name, why, "the parameters of this model are ignored");
        Options::default()
    })
}

/// The messages that every conversation with a model begins with.
pub(super) fn own_messages(entry: &ModelEntry) -> impl Iterator<Item = Message> {
    entry.settings.messages.iter().map(|one| Message::text(&one.role, one.content.clone()))
}

/// The whole name, as Ollama has it in messages about capabilities.
fn full_name(entry: &ModelEntry) -> String {
    let name = entry.name.to_string();
    match name.matches('/').count() {
        0 => format!("registry.ollama.ai/library/{name}"),
        1 => format!("registry.ollama.ai/{name}"),
        _ => name,
    }
}

pub(super) fn require(entry: &ModelEntry, needed: Capability, what: &str) -> Result<(), Failure> {
    if entry.can(needed) {
        return Ok(());
    }
    Err(Failure::bad_request(format!("{} does not support {what}", full_name(entry))))
}

/// A model that only makes embeddings cannot answer.
pub(super) fn require_completion(entry: &ModelEntry, name: &str, what: &str) -> Result<(), Failure> {
    if entry.can(Capability::Completion) {
        return Ok(());
    }
    Err(Failure::bad_request(format!("\"{name}\" does not support {what}")))
}

/// Pictures and sounds need a projector for them, and must look like what they are: what their beginnings
/// tell is known before a model is loaded.
pub(super) fn require_modalities<'a>(
    entry: &ModelEntry,
    media: impl IntoIterator<Item = &'a MediaFile>,
) -> Result<(), Failure> {
    for (at, file) in media.into_iter().enumerate() {
        let kind = MediaKind::of(file);
        match kind {
            MediaKind::Picture => require(entry, Capability::Vision, "images")?,
            MediaKind::Sound => require(entry, Capability::Audio, "audio")?,
        }
        probe(file).map_err(|error| Failure::bad_request(format!("{} {}: {error}", kind.name(), at + 1)))?;
    }
    Ok(())
}

/// What a request to think means on this model: a thinking model thinks unless asked not to.
pub(super) fn thinking(
    entry: &ModelEntry,
    base: &JobBase,
    think: Option<Think>,
) -> Result<Option<Think>, Failure> {
    if entry.can(Capability::Thinking) {
        return Ok(Some(think.unwrap_or(Think::Switch(true))));
    }
    match think {
        None | Some(Think::Switch(false)) => Ok(None),
        Some(_) if !base.strict_think => Ok(None),
        Some(_) => Err(Failure::bad_request(format!("\"{}\" does not support thinking", base.model))),
    }
}

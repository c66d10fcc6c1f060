//! The model store as the server's catalogue.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::catalog::{Capabilities, Catalog, Details, LookupError, ModelEntry, ShowData};
use crate::Failure;
use crate::job::Message;
use crate::options::Options;
use hypura_store::{self as store, Capability, Locality, ModelName, Store, StoreError};

/// All models of this machine.
pub struct StoreCatalog {
    store: Arc<Store>,
    /// The tensors of models that were asked for, by their weights: clients ask again and again, and reading the header
    /// of a large vocabulary takes longer than they should wait.
    tensors: Mutex<HashMap<String, Arc<Vec<Value>>>>,
}

impl StoreCatalog {
    /// A catalogue of this store.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, tensors: Mutex::default() }
    }

    fn entry(&self, entry: &store::ModelEntry) -> Result<ModelEntry, Failure> {
        let path = self.store.open_path(entry).map_err(|error| failure_of_store(&error))?;
        let can = |capability| entry.can(capability);
        let details = entry.details();
        let options = Options::of_json(&entry.parameters).unwrap_or_else(|why| {
            tracing::warn!(model = %entry.name, why, "the parameters of this model are ignored");
            Options::default()
        });
        Ok(ModelEntry {
            name: entry.name.to_string(),
            weights: weights(&path, entry.usable_projector().map(PathBuf::as_path)),
            path,
            projector: entry.usable_projector().cloned(),
            digest: entry.digest.clone(),
            size_bytes: entry.size,
            modified: entry.modified,
            details: Details {
                parent_model: details.parent_model,
                format: details.format,
                family: details.family,
                families: details.families,
                parameter_size: details.parameter_size,
                quantization_level: details.quantization_level,
                context_length: details.context_length,
                embedding_length: details.embedding_length,
            },
            capabilities: Capabilities {
                completion: can(Capability::Completion),
                tools: can(Capability::Tools),
                insert: can(Capability::Insert),
                vision: can(Capability::Vision),
                embedding: can(Capability::Embedding),
                thinking: can(Capability::Thinking),
                audio: can(Capability::Audio),
            },
            template: entry.own_jinja().map(str::to_owned),
            system: entry.system.clone(),
            options,
            messages: entry
                .messages
                .iter()
                .map(|one| Message::text(&one.role, one.content.clone()))
                .collect(),
        })
    }
}

impl StoreCatalog {
    fn tensors(&self, entry: &ModelEntry) -> Result<Arc<Vec<Value>>, Failure> {
        let known = || self.tensors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = known().get(&entry.weights) {
            return Ok(Arc::clone(rows));
        }
        let rows = self.store.tensors(&entry.name).map_err(|error| failure_of_store(&error))?;
        let rows = rows.iter().map(|row| serde_json::to_value(row).unwrap_or(Value::Null));
        let rows = Arc::new(rows.collect::<Vec<_>>());
        known().insert(entry.weights.clone(), Arc::clone(&rows));
        Ok(rows)
    }
}

impl Catalog for StoreCatalog {
    fn resolve(&self, name: &str) -> Result<Arc<ModelEntry>, LookupError> {
        match self.store.resolve(name) {
            Ok(entry) => self.entry(&entry).map(Arc::new).map_err(LookupError::Refused),
            Err(StoreError::InvalidName(_)) => Err(LookupError::Invalid),
            Err(StoreError::NotFound(_)) => Err(match ModelName::parse_request(name) {
                Ok((_, Locality::Cloud)) => {
                    let message =
                        format!("model '{name}' runs in Ollama's cloud: cloud features are disabled here");
                    LookupError::Refused(Failure::new(http::StatusCode::FORBIDDEN, message))
                }
                _ => LookupError::NotInstalled,
            }),
            Err(error) => Err(LookupError::Refused(failure_of_store(&error))),
        }
    }

    fn list(&self) -> Vec<Arc<ModelEntry>> {
        let models = self.store.list().models;
        models.iter().filter_map(|entry| self.entry(entry).ok()).map(Arc::new).collect()
    }

    fn show(&self, entry: &ModelEntry, verbose: bool) -> Result<ShowData, Failure> {
        let show = self.store.show(&entry.name, verbose).map_err(|error| failure_of_store(&error))?;
        Ok(ShowData {
            license: Some(show.license).filter(|text| !text.is_empty()),
            modelfile: show.modelfile,
            parameters: show.parameters,
            template: show.template,
            model_info: show.model_info,
            tensors: self.tensors(entry)?.as_ref().clone(),
            projector_info: show.projector_info,
            renderer: show.renderer,
            parser: show.parser,
            requires: show.requires,
        })
    }

    fn store(&self) -> Option<Arc<Store>> {
        Some(Arc::clone(&self.store))
    }
}

/// A store's error for a client.
#[must_use]
pub fn failure_of_store(error: &StoreError) -> Failure {
    let status =
        http::StatusCode::from_u16(error.status()).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    if status.is_server_error() {
        tracing::warn!(%error, "model store");
    }
    Failure::new(status, crate::without_paths(&error.public_message()))
}

/// Place, size and time of the files: what is loaded from them is good as long as they stay.
fn weights(path: &Path, projector: Option<&Path>) -> String {
    match projector {
        Some(projector) => format!("{}\n{}", stamp(path), stamp(projector)),
        None => stamp(path),
    }
}

fn stamp(path: &Path) -> String {
    let about = std::fs::metadata(path).ok();
    let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let bytes = about.as_ref().map_or(0, std::fs::Metadata::len);
    let changed =
        about.and_then(|about| about.modified().ok()).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("{}\n{bytes}\n{}", place.display(), changed.map_or(0, |time| time.as_nanos()))
}

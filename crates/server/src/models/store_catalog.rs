//! The model store as the server's catalogue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hypura_store::{Locality, ModelEntry, ModelName, Show, Store, StoreError, TensorRow};

use super::catalog::{Catalog, LookupError};
use crate::Failure;

/// All models of this machine.
pub struct StoreCatalog {
    store: Arc<Store>,
    /// The tensors of models that were asked for, by their weights: clients ask again and again, and reading
    /// the header of a large vocabulary takes longer than they should wait.
    tensors: Mutex<HashMap<String, Arc<Vec<TensorRow>>>>,
}

impl StoreCatalog {
    /// A catalogue of this store.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, tensors: Mutex::default() }
    }

    fn tensors(&self, entry: &ModelEntry) -> Result<Arc<Vec<TensorRow>>, StoreError> {
        let known = || self.tensors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = known().get(&entry.weights) {
            return Ok(Arc::clone(rows));
        }
        let rows = Arc::new(entry.tensors()?);
        known().insert(entry.weights.clone(), Arc::clone(&rows));
        Ok(rows)
    }
}

impl Catalog for StoreCatalog {
    fn resolve(&self, name: &str) -> Result<Arc<ModelEntry>, LookupError> {
        match self.store.resolve(name) {
            Ok(entry) => Ok(Arc::new(entry)),
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
        self.store.list().models.into_iter().map(Arc::new).collect()
    }

    fn show(&self, entry: &ModelEntry, verbose: bool) -> Result<Show, Failure> {
        let show = Show::of(entry, verbose).and_then(|show| {
            let tensors = Some(self.tensors(entry)?.as_ref().clone());
            Ok(Show { tensors, ..show })
        });
        show.map_err(|error| failure_of_store(&error))
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

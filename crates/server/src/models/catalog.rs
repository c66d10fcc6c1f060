//! Which models there are: what the server needs of a store.

use std::sync::Arc;

use hypura_store::{ModelEntry, Show, Store};

use crate::Failure;

/// Why a name leads to no model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// It is no name.
    Invalid,
    /// It is one, and nothing of that name is installed.
    NotInstalled,
    /// The request is refused for another reason.
    Refused(Failure),
}

/// The models of this machine. All calls may read files and write none: call them where blocking is allowed.
pub trait Catalog: Send + Sync {
    /// The model of a name, as a request writes it.
    ///
    /// # Errors
    /// [`LookupError`].
    fn resolve(&self, name: &str) -> Result<Arc<ModelEntry>, LookupError>;
    /// All models, newest first.
    fn list(&self) -> Vec<Arc<ModelEntry>>;
    /// Everything about a model, its tensors too. `verbose` gives long arrays.
    ///
    /// # Errors
    /// 500 when its files cannot be read.
    fn show(&self, entry: &ModelEntry, verbose: bool) -> Result<Show, Failure>;
    /// The store for changes, where there is one.
    fn store(&self) -> Option<Arc<Store>>;
}

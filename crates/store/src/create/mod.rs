//! New models of our own store: from a model of any store, from blobs, or from a file. Weights are linked,
//! not copied, wherever the file system can do that.
//!
//! - `request`: what is asked for
//! - `progress`: what is told meanwhile
//! - `draft`: a model that drafts for the new one
//! - `parts`: what a model is made of, before it has a manifest
//! - `quantize`: weights in another type, by a `quantizer`
//! - `save`: blobs, and the manifest that names them

mod draft;
mod parts;
mod progress;
mod quantize;
mod quantizer;
mod request;
mod save;

pub use progress::Progress;
pub use quantizer::Quantizer;
pub use request::{CreateRequest, Texts};

use super::entry::ModelEntry;
use super::name::ModelName;
use super::{Store, StoreError};
use parts::Parts;

impl Store {
    /// Makes a model. Hashes its file when that came from outside of any store, which takes as long as
    /// reading it.
    ///
    /// # Errors
    /// [`StoreError::BadRequest`] and its like for requests that make no sense, with Ollama's words.
    pub fn create(
        &self,
        request: &CreateRequest,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<ModelName, StoreError> {
        self.create_with(request, None, watch)
    }

    /// The same; `quantizer` does what `quantize` of the request asks for.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_with(
        &self,
        request: &CreateRequest,
        quantizer: Option<&dyn Quantizer>,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<ModelName, StoreError> {
        let target = request.model.as_deref().or(request.name.as_deref()).unwrap_or_default();
        let target = ModelName::parse(target)?;
        request.refuse_unsupported(quantizer)?;
        let layout = self.own()?;
        let mut parts = Parts::of_request(self, request, watch)?;
        parts.take_draft(self, request)?;
        parts.change(request)?;
        let quantize = request.quantization().zip(quantizer);
        let _temporary = quantize.map(|(kind, by)| parts.quantize(&layout, kind, by, watch)).transpose()?;
        parts.save(&layout, &target, watch)?;
        watch(Progress::status("success"));
        Ok(target)
    }

    /// See [`Store::copy`].
    pub(super) fn save_copy(&self, entry: &ModelEntry, to: &ModelName) -> Result<(), StoreError> {
        Parts::of_entry(entry).save(&self.own()?, to, &mut |_| {})
    }
}

//! A model that drafts for the new one: one file, of the same vocabulary.

use hypura_core::speculate::check_vocabulary;
use std::path::PathBuf;

use super::CreateRequest;
use super::parts::{Blob, Parts, Weights, blobs};
use crate::cache::read_headers;
use crate::files::shown_name;
use crate::{Store, StoreError};

impl Parts {
    /// Takes the draft model of a request, in place of the one that there may be.
    pub(super) fn take_draft(&mut self, store: &Store, request: &CreateRequest) -> Result<(), StoreError> {
        let files = match (&request.draft_file, &request.draft_files) {
            (Some(file), _) => vec![(shown_name(file), file.clone(), None)],
            (None, Some(files)) => blobs(store, files)?,
            (None, None) => return Ok(()),
        };
        let bad = |why: String| StoreError::BadRequest(why);
        let (_, path, digest) = match <[Blob; 1]>::try_from(files) {
            Ok([blob]) => blob,
            Err(files) if files.is_empty() => return Ok(()),
            Err(_) => return Err(bad("a draft model is one file".to_owned())),
        };
        let header = |files: &[PathBuf]| {
            let read = read_headers(files);
            read.map(|(gguf, _)| gguf)
                .map_err(|error| bad(format!("the draft model cannot be read: {error}")))
        };
        let models = self.weights.iter().filter(|weights| weights.kind == "model");
        let models: Vec<PathBuf> = models.map(|weights| weights.path.clone()).collect();
        let (target, draft) = (header(&models)?, header(std::slice::from_ref(&path))?);
        check_vocabulary(&target.metadata, &draft.metadata)
            .map_err(|error| bad(format!("this draft model does not fit: {error}")))?;
        self.weights.retain(|weights| weights.kind != "draft");
        self.weights.push(Weights { kind: "draft", path, digest, name: None });
        Ok(())
    }
}

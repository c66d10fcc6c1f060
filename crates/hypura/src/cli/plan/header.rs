//! The header of a model, wherever it is: a file, a URL, or `hf:org/repo:QUANT`.

use hypura_core::model::ModelShape;
use hypura_engine::source::ModelSource;
use hypura_store::fetch::{FetchError, remote_header};
use std::path::{Path, PathBuf};

use crate::cli::failure::UsageError;
use crate::cli::flags::ModelFlags;

/// A model as far as its header tells.
#[derive(Debug)]
pub(super) struct Header {
    /// As the user named it.
    pub name: String,
    /// Its files, if it is on this machine.
    pub source: Option<ModelSource>,
    /// Its projector for images and sounds, if that is on this machine.
    pub projector: Option<PathBuf>,
    /// Size of the first file.
    pub first_file_bytes: u64,
    /// Files.
    pub shards: usize,
    /// What the model is made of.
    pub shape: ModelShape,
}

impl Header {
    /// The first file, if the model is on this machine.
    pub fn path(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| source.path.as_path())
    }
}

/// Reads the header of a model.
///
/// # Errors
/// What is wrong with the name, the server, or the file.
pub(super) fn find(args: &ModelFlags) -> anyhow::Result<Header> {
    let name = args.model.display().to_string();
    if let Some(remote) = remote_header(&name) {
        let remote = remote.map_err(|error| match error {
            FetchError::NotARepository(_) => UsageError(error.to_string()).into(),
            _ => anyhow::Error::new(error),
        })?;
        return Ok(Header {
            name,
            source: None,
            projector: None,
            first_file_bytes: remote.first_file_bytes,
            shards: remote.shards,
            shape: remote.shape,
        });
    }
    let named = args.find()?;
    let source = ModelSource::open(&named.path)?;
    Ok(Header {
        name,
        projector: named.projector,
        first_file_bytes: source.files.first().map_or(0, |file| file.len()),
        shards: source.files.len(),
        shape: source.shape.clone(),
        source: Some(source),
    })
}

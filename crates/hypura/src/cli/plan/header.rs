//! The header of a model, wherever it is: a file, a URL, `hf:org/repo:QUANT`, or a name that a pull would
//! know.

use hypura_core::gguf::GgmlType;
use hypura_core::model::ModelShape;
use hypura_engine::source::ModelSource;
use hypura_store::fetch::{FetchError, RemoteHeader, RemoteName, remote_header};
use hypura_store::{Store, StoreError};
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
    /// The context that the model was made with, if it is on this machine.
    pub context_tokens: Option<u32>,
    /// Size of the first file.
    pub first_file_bytes: u64,
    /// Files.
    pub shards: usize,
    /// What the model is made of.
    pub shape: ModelShape,
    /// As it came, if the model is elsewhere.
    remote: Option<RemoteHeader>,
}

impl Header {
    /// With the weights in another type; `None` where that makes no model.
    pub fn shape_in_type(&self, ty: GgmlType) -> Option<ModelShape> {
        match (&self.source, &self.remote) {
            (Some(source), _) => source.shape_in_type(ty),
            (None, Some(remote)) => remote.in_type(ty),
            (None, None) => None,
        }
    }

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
    let remote = remote_header(&name).or_else(|| elsewhere(args, &name));
    if let Some(remote) = remote {
        let remote = remote.map_err(|error| match error {
            FetchError::NotARepository(_) => UsageError(error.to_string()).into(),
            _ => anyhow::Error::new(error),
        })?;
        return Ok(Header {
            name,
            source: None,
            projector: None,
            context_tokens: None,
            first_file_bytes: remote.first_file_bytes,
            shards: remote.shards,
            shape: remote.shape.clone(),
            remote: Some(remote),
        });
    }
    let named = args.find()?;
    let source = ModelSource::open(&named.path)?;
    Ok(Header {
        name,
        context_tokens: named.context_tokens(),
        projector: named.projector,
        first_file_bytes: source.files.first().map_or(0, |file| file.len()),
        shards: source.files.len(),
        shape: source.shape.clone(),
        source: Some(source),
        remote: None,
    })
}

/// The header of a model of Hugging Face or a registry that is not on this machine.
fn elsewhere(args: &ModelFlags, name: &str) -> Option<Result<RemoteHeader, FetchError>> {
    let is_path = args.model.exists() || name.starts_with(['.', '/', '~']) || name.ends_with(".gguf");
    let remote = RemoteName::parse(name).ok().filter(|_| !is_path && name != "demo")?;
    // Only what says where it is: a bare name may be a mistake, which other servers need not hear of.
    let says_where = match &remote {
        RemoteName::HuggingFace { .. } => true,
        RemoteName::Registry { .. } => name.matches('/').count() > 1,
        RemoteName::Url(_) => false,
    };
    let store = Store::of_environment();
    if !says_where || !matches!(store.resolve(name), Err(StoreError::NotFound(_))) {
        return None;
    }
    let asked = store.pulls().remote();
    Some(asked.find(&remote, false).and_then(|model| asked.header(&model)))
}

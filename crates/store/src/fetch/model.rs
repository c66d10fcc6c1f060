//! What a name stands for: files elsewhere, and where they go.

use std::sync::Arc;

use crate::web::Access;
use crate::{Digest, ModelName};

/// A model elsewhere.
#[derive(Debug)]
pub struct RemoteModel {
    /// What it is called once it is here.
    pub name: String,
    /// Its files: weights in the order of the shards, then the projector, then the rest.
    pub files: Vec<RemoteFile>,
    /// Which other quantisations its repository has, smallest first, this one too; empty elsewhere.
    pub variants: Vec<Variant>,
    pub(crate) home: Home,
    pub(crate) access: Arc<Access>,
}

/// A file elsewhere.
#[derive(Clone, Debug)]
pub struct RemoteFile {
    /// Its name; in a repository its path.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// What it is for.
    pub kind: FileKind,
    pub(crate) url: String,
    pub(crate) identity: Identity,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Weights: the model, or a shard of it.
    Weights,
    /// A projector for images and sounds.
    Projector,
    /// A template, a licence, parameters.
    Text,
}

/// How a file is told from another one that took its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// By its content.
    Content(Digest),
    /// By what its server says of it: an entity tag, or a date. Where there is neither, empty: then a file
    /// that is not whole cannot be continued.
    Tag(String),
}

impl Identity {
    /// The digest, if it is known before.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Content(digest) => Some(digest),
            Self::Tag(_) => None,
        }
    }

    /// As a journal keeps it.
    pub fn text(&self) -> String {
        match self {
            Self::Content(digest) => digest.to_string(),
            Self::Tag(tag) => format!("tag:{tag}"),
        }
    }
}

/// Where files of a repository go in the cache.
#[derive(Clone, Debug)]
pub(crate) struct HubPlace {
    /// `org/repo`.
    pub repo: String,
    /// The branch or tag that was asked for.
    pub revision: String,
    /// The commit that it is.
    pub commit: String,
    /// All GGUF files of that commit whose content is known, by path: those that are here belong to its
    /// snapshot too.
    pub known: Vec<(String, Digest)>,
}

/// Where a model goes.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// Hugging Face's cache.
    HuggingFace(HubPlace),
    /// Our own store, with this manifest.
    Registry { name: ModelName, manifest: Vec<u8> },
    /// Our own store, with a manifest that is yet to be made.
    Files { name: ModelName },
}

/// One quantisation of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What is written behind the colon.
    pub tag: String,
    /// Of all its shards; without the projector.
    pub bytes: u64,
    /// Its files, in the order of the shards.
    pub files: Vec<String>,
}

impl RemoteModel {
    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
    }

    /// The files with weights.
    pub fn weights(&self) -> impl Iterator<Item = &RemoteFile> {
        self.files.iter().filter(|file| file.kind == FileKind::Weights)
    }
}

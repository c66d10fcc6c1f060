//! Ollama's library, and registries like it: manifests and blobs by digest.

use std::sync::Arc;

use super::model::{FileKind, Home, Identity, RemoteFile, RemoteModel};
use super::name::may_be_plain;
use super::{FetchError, HttpError};
use crate::layout::{Layer, Layout, MANIFEST_TYPE, Manifest};
use crate::web::{Access, Client, Request};
use crate::{Digest, ModelName};

/// How a registry is asked.
pub(super) struct Asked<'a> {
    pub name: &'a ModelName,
    /// `http://` was written.
    pub plain_http: bool,
    /// The user insists on it.
    pub insecure: bool,
}

/// The model of a registry.
pub(super) fn model(client: &Client, asked: &Asked<'_>) -> Result<RemoteModel, FetchError> {
    let name = asked.name;
    let plain = may_be_plain(name, asked.insecure);
    if asked.plain_http && !plain {
        return Err(FetchError::Insecure);
    }
    let loopback = may_be_plain(name, false);
    let scheme = if asked.plain_http || loopback { "http" } else { "https" };
    let base = format!("{scheme}://{}/v2/{}/{}", name.host(), name.namespace(), name.model());
    let access = Arc::new(Access::of_registry());
    let url = format!("{base}/manifests/{}", name.tag());
    let request = Request { accept: Some(MANIFEST_TYPE), ..Request::new(&url) };
    let text = client.text(&request, &access).map_err(|error| match error {
        HttpError::NotFound { .. } => FetchError::NoSuchModel { name: name.to_string(), source: error },
        other => other.into(),
    })?;
    let malformed = |what: String| FetchError::Manifest { name: name.to_string(), what };
    let (manifest, _) = Layout::parse(text.as_bytes()).map_err(|error| malformed(error.to_string()))?;
    let files = manifest_files(&manifest, &base).ok_or_else(|| malformed("a bad digest".to_owned()))?;
    if !files.iter().any(|file| file.kind == FileKind::Weights) {
        return Err(FetchError::NoWeights(name.to_string()));
    }
    Ok(RemoteModel {
        name: name.to_string(),
        files,
        variants: Vec::new(),
        home: Home::Registry { name: name.clone(), manifest: text.into_bytes() },
        access,
    })
}

/// The layers of a manifest and its config, each digest once.
pub(crate) fn layers_of(manifest: &Manifest) -> Vec<&Layer> {
    let mut layers: Vec<&Layer> = Vec::new();
    for layer in manifest.layers.iter().chain([&manifest.config]) {
        if layers.iter().all(|known| known.digest != layer.digest) {
            layers.push(layer);
        }
    }
    layers
}

/// The files of a manifest, weights first; `None` when a digest is none.
fn manifest_files(manifest: &Manifest, base: &str) -> Option<Vec<RemoteFile>> {
    let file = |layer: &&Layer| {
        let digest = Digest::parse(&layer.digest).ok()?;
        let kind = match layer.kind() {
            "model" => FileKind::Weights,
            "projector" => FileKind::Projector,
            _ => FileKind::Text,
        };
        Some(RemoteFile {
            name: layer.name.clone().unwrap_or_else(|| layer.kind().to_owned()),
            bytes: layer.size,
            kind,
            url: format!("{base}/blobs/{digest}"),
            identity: Identity::Content(digest),
        })
    };
    let mut files: Vec<RemoteFile> = layers_of(manifest).iter().map(file).collect::<Option<_>>()?;
    files.sort_by_key(|file| match file.kind {
        FileKind::Weights => 0,
        FileKind::Projector => 1,
        FileKind::Text => 2,
    });
    Some(files)
}

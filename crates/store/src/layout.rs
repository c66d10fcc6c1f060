//! The layout of Ollama's store, which is also that of ours: `manifests/HOST/NAMESPACE/MODEL/TAG` are small
//! JSON files that name `blobs/sha256-HEX` by digest and kind.
//!
//! Reads under bounds and follows digests only, so nothing that a manifest says can lead out of `blobs`.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::files;
use super::name::ModelName;
use super::unusable::Unusable;

/// No manifest is as long as this.
pub(super) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Nor a template, a system prompt, a licence, or a list of parameters.
pub(super) const MAX_TEXT_BYTES: u64 = 16 << 20;
/// What manifests say they are.
pub(super) const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The kind of the config blob.
pub(super) const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
/// What the kinds of layers begin with.
pub(super) const LAYER_PREFIX: &str = "application/vnd.ollama.image.";

/// One layer: a blob and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Layer {
    /// What it is for.
    pub media_type: String,
    /// Which blob.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Name of a file, for shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The model that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl Layer {
    /// What it is for, in a word: `model`, `template`, …
    pub fn kind(&self) -> &str {
        self.media_type.strip_prefix(LAYER_PREFIX).unwrap_or(&self.media_type)
    }
}

/// What makes up a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    /// 2.
    #[serde(default)]
    pub schema_version: u32,
    /// [`MANIFEST_TYPE`]
    #[serde(default)]
    pub media_type: String,
    /// What kind of model it is.
    pub config: Layer,
    /// Its parts.
    pub layers: Vec<Layer>,
}

/// What the config blob says. All of it may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub model_format: String,
    pub model_family: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub model_families: Vec<String>,
    /// The number of parameters for people.
    pub model_type: String,
    /// The quantisation.
    pub file_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renderer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parser: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    /// Not Ollama's: see [`ModelSettings`](crate::ModelSettings::template_is_own).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hypura_own_template: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_model: Option<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A manifest and the name it stands for.
type Named = (ModelName, PathBuf);

/// A folder of manifests and blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.file_name())
    }

    /// Where the manifest of a name goes.
    pub fn manifest(&self, name: &ModelName) -> PathBuf {
        let folder = self.root.join("manifests");
        folder.join(name.host()).join(name.namespace()).join(name.model()).join(name.tag())
    }

    /// The manifest of a name, however the name was spelled when it was written.
    pub fn find(&self, name: &ModelName) -> Option<PathBuf> {
        let exact = self.manifest(name);
        if exact.is_file() {
            return Some(exact);
        }
        let mut at = self.root.join("manifests");
        for part in [name.host(), name.namespace(), name.model(), name.tag()] {
            at = children(&at).into_iter().find(|(child, _)| child.eq_ignore_ascii_case(part))?.1;
        }
        at.is_file().then_some(at)
    }

    /// All manifests with their names. `Err` is a path that is no name.
    ///
    /// Goes exactly four levels down, so links that lead in circles lead nowhere.
    pub fn manifests(&self) -> Vec<Result<Named, PathBuf>> {
        let mut found = Vec::new();
        for (host, path) in children(&self.root.join("manifests")) {
            for (namespace, path) in children(&path) {
                for (model, path) in children(&path) {
                    for (tag, path) in children(&path) {
                        let name = ModelName::parse(&format!("{host}/{namespace}/{model}:{tag}"));
                        found.push(match name {
                            Ok(name) => Ok((name, path)),
                            Err(_) => Err(path),
                        });
                    }
                }
            }
        }
        found
    }

    /// Reads a manifest; also gives its digest, which is that of the model.
    pub fn read(path: &Path) -> io::Result<(Manifest, Digest)> {
        Self::parse(&Self::read_text(path)?)
    }

    /// The text of a manifest.
    pub fn read_text(path: &Path) -> io::Result<Vec<u8>> {
        files::read_bounded(path, MAX_MANIFEST_BYTES)
    }

    /// What the text of a manifest says, and its digest.
    pub fn parse(text: &[u8]) -> io::Result<(Manifest, Digest)> {
        Ok((serde_json::from_slice(text)?, Digest::of(text)))
    }

    /// The whole blob of a layer, if it is there.
    pub fn layer_file(&self, layer: &Layer) -> Result<PathBuf, Unusable> {
        let digest = Digest::parse(&layer.digest).map_err(|_| Unusable::BadDigest)?;
        let path = self.blob(&digest);
        let blob = digest.hex().get(..12).unwrap_or_default().to_owned();
        let about = match fs::metadata(&path) {
            Ok(about) => about,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                let partial = path.with_file_name(format!("{}-partial", digest.file_name())).exists();
                return Err(if partial {
                    Unusable::BlobPartial { blob }
                } else {
                    Unusable::BlobMissing { blob }
                });
            }
            Err(source) => return Err(Unusable::BlobUnreadable { blob, source }),
        };
        if !about.is_file() {
            return Err(Unusable::BlobNoFile { blob });
        }
        if about.len() != layer.size {
            return Err(Unusable::BlobSize { blob, bytes: about.len(), expected: layer.size });
        }
        Ok(path)
    }

    /// The text of a layer.
    pub fn text(&self, layer: &Layer) -> Result<String, Unusable> {
        let path = self.layer_file(layer)?;
        let kind = || layer.kind().to_owned();
        let bytes = files::read_bounded(&path, MAX_TEXT_BYTES)
            .map_err(|source| Unusable::LayerUnreadable { kind: kind(), source })?;
        String::from_utf8(bytes).map_err(|_| Unusable::LayerNoText { kind: kind() })
    }

    /// What the JSON of a layer says.
    pub fn json<T: serde::de::DeserializeOwned>(&self, layer: &Layer) -> Result<T, Unusable> {
        let text = self.text(layer)?;
        serde_json::from_str(&text)
            .map_err(|source| Unusable::LayerMalformed { kind: layer.kind().to_owned(), source })
    }

    /// What the config blob says; an unreadable one says nothing.
    pub fn config(&self, manifest: &Manifest) -> Config {
        let text = self.text(&manifest.config).ok();
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }
}

/// What is in a folder, by name; hidden files are none of ours. A folder that cannot be read is empty.
pub(super) fn children(folder: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let named = |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.path()));
    let mut all: Vec<_> =
        entries.flatten().filter_map(named).filter(|(name, _)| !name.starts_with('.')).collect();
    all.sort();
    all
}

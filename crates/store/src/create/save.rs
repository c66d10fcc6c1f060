//! From what a model is made of to blobs, and the manifest that names them.
//!
//! The manifest is written last: until then there is no new model. From the first look for a blob to the
//! manifest the store's lock is held, so that nobody deletes what was found.

use serde_json::json;
use std::fs;
use std::io;

use super::parts::{Parts, Weights};
use super::progress::{Progress, Watch};
use crate::StoreError;
use crate::blobs::{Stored, link_blob, store_bytes};
use crate::digest::Digest;
use crate::layout::{
    CONFIG_TYPE, Config, LAYER_PREFIX, Layer, Layout, MANIFEST_TYPE, MAX_MANIFEST_BYTES, MAX_TEXT_BYTES,
    Manifest,
};
use crate::lock::StoreLock;
use crate::name::ModelName;
use crate::naming::write_manifest;

/// What would be written and never read again.
fn too_long(what: &str, most: u64) -> StoreError {
    StoreError::BadRequest(format!("the {what} of a model may have {} MiB at most", most >> 20))
}

impl Parts {
    /// Brings everything into the layout.
    pub fn save(&self, layout: &Layout, name: &ModelName, watch: Watch<'_>) -> Result<(), StoreError> {
        let texts = self.settings.layers();
        if let Some((kind, _)) = texts.iter().find(|(_, text)| text.len() as u64 > MAX_TEXT_BYTES) {
            return Err(too_long(kind, MAX_TEXT_BYTES));
        }
        // Reading weights may take minutes, in which others may change the store.
        let digests =
            self.weights.iter().map(|weights| digest_of(weights, watch)).collect::<Result<Vec<_>, _>>()?;
        let lock = StoreLock::acquire(layout)?;
        let mut layers = Vec::new();
        for (weights, digest) in self.weights.iter().zip(digests) {
            layers.push(self.weights_layer(layout, weights, &digest, watch)?);
        }
        for (kind, text) in texts {
            layers.push(add_layer(layout, &format!("{LAYER_PREFIX}{kind}"), text.as_bytes(), watch)?);
        }
        let config = json!(self.config()).to_string();
        let config = add_layer(layout, CONFIG_TYPE, config.as_bytes(), watch)?;
        watch(Progress::status("writing manifest"));
        let manifest = Manifest { schema_version: 2, media_type: MANIFEST_TYPE.to_owned(), config, layers };
        let text =
            serde_json::to_vec(&manifest).map_err(|error| StoreError::BadRequest(error.to_string()))?;
        if text.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(too_long("list of layers", MAX_MANIFEST_BYTES));
        }
        write_manifest(layout, &lock, name, &text)
    }

    fn config(&self) -> Config {
        let has_projector = self.weights.iter().any(|weights| weights.kind == "projector");
        Config {
            model_format: "gguf".to_owned(),
            model_family: self.facts.architecture.clone(),
            model_families: self.facts.families(has_projector),
            model_type: self.facts.parameter_size(),
            file_type: self.facts.quantization.clone(),
            renderer: self.settings.renderer.clone(),
            parser: self.settings.parser.clone(),
            requires: self.settings.requires.clone(),
            hypura_own_template: self.settings.template_is_own,
            remote_host: None,
            remote_model: None,
        }
    }

    fn weights_layer(
        &self,
        layout: &Layout,
        weights: &Weights,
        digest: &Digest,
        watch: Watch<'_>,
    ) -> Result<Layer, StoreError> {
        let path = &weights.path;
        let size = match fs::metadata(path) {
            Ok(about) => about.len(),
            // It was there when it was asked for, and was deleted since.
            Err(error) if error.kind() == io::ErrorKind::NotFound && *path == layout.blob(digest) => {
                return Err(StoreError::NoBlob(digest.to_string()));
            }
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        let stored = link_blob(layout, path, digest, size)?;
        tell(digest, stored, watch);
        let from = self.parent.clone().filter(|_| weights.kind == "model");
        Ok(Layer {
            media_type: format!("{LAYER_PREFIX}{}", weights.kind),
            digest: digest.to_string(),
            size,
            name: weights.name.clone(),
            from,
        })
    }
}

/// The digest of a file of weights; reads it where that is not known.
fn digest_of(weights: &Weights, watch: Watch<'_>) -> Result<Digest, StoreError> {
    let path = &weights.path;
    if let Some(digest) = &weights.digest {
        return Ok(digest.clone());
    }
    let size = fs::metadata(path).map_err(StoreError::io("read", path))?.len();
    let mut told = |done| {
        let status = "hashing weights".to_owned();
        watch(Progress { status, digest: None, total: Some(size), completed: Some(done) });
    };
    Digest::of_file(path, &mut told).map_err(StoreError::io("read", path))
}

fn add_layer(layout: &Layout, media_type: &str, bytes: &[u8], watch: Watch<'_>) -> Result<Layer, StoreError> {
    let (digest, stored) = store_bytes(layout, bytes)?;
    tell(&digest, stored, watch);
    Ok(Layer {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: bytes.len() as u64,
        name: None,
        from: None,
    })
}

fn tell(digest: &Digest, stored: Stored, watch: Watch<'_>) {
    let how = match stored {
        Stored::Created => "creating new layer",
        Stored::Present => "using existing layer",
    };
    watch(Progress::status(format!("{how} {digest}")));
}

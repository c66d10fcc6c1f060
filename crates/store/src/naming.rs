//! Which blobs manifests name: written and given up under the store's lock.

use std::collections::HashSet;
use std::fs;

use super::StoreError;
use super::digest::Digest;
use super::files::write_atomically;
use super::layout::{Layer, Layout, Manifest};
use super::lock::StoreLock;
use super::name::ModelName;
use super::shards::shards_folder;

/// Writes the manifest of a model, whose blobs were looked for under this lock.
pub(super) fn write_manifest(
    layout: &Layout,
    lock: &StoreLock,
    name: &ModelName,
    text: &[u8],
) -> Result<(), StoreError> {
    // The same name in other letters is the same model.
    let path = layout.find(name).unwrap_or_else(|| layout.manifest(name));
    let old = Layout::read(&path).ok().map(|(manifest, _)| manifest);
    write_atomically(&path, text).map_err(StoreError::io("write", &path))?;
    if let Some(old) = old {
        remove_unused(layout, lock, &old);
    }
    Ok(())
}

fn digests(manifest: &Manifest) -> impl Iterator<Item = Digest> {
    let layers = manifest.layers.iter().chain([&manifest.config]);
    layers.filter_map(|layer: &Layer| Digest::parse(&layer.digest).ok())
}

/// Removes those blobs of a manifest that no manifest names any more. What cannot be removed stays: it is
/// only space.
pub(super) fn remove_unused(layout: &Layout, _lock: &StoreLock, removed: &Manifest) {
    let mut used = HashSet::new();
    for (_, path) in layout.manifests().into_iter().flatten() {
        match Layout::read(&path) {
            Ok((manifest, _)) => used.extend(digests(&manifest)),
            // Nobody knows what an unreadable manifest needs, so everything stays.
            Err(_) => return,
        }
    }
    for digest in digests(removed).filter(|digest| !used.contains(digest)) {
        let _ = fs::remove_file(layout.blob(&digest));
        let _ = fs::remove_dir_all(shards_folder(layout.root(), digest.hex()));
    }
}

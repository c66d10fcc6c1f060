//! Names for what arrived: a snapshot of Hugging Face's cache, or a manifest of our own store.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use super::PullError;
use super::file::{Arrived, Item};
use crate::fetch::{HubPlace, layers_of};
use crate::files::write_atomically;
use crate::layout::Layout;
use crate::lock::StoreLock;
use crate::naming::write_manifest;
use crate::{CreateRequest, Digest, ModelName, Store, StoreError};

/// Makes files part of the snapshot of their commit, and the commit that of its branch. So do those of its
/// other files that are here already, of an earlier commit that had the same ones.
pub(super) fn snapshot(
    hub: &Path,
    place: &HubPlace,
    items: &[Item],
    arrived: &[Arrived],
) -> Result<(), PullError> {
    let repository = hub.join(place.folder_name());
    let folder = repository.join("snapshots").join(&place.commit);
    for (item, arrived) in items.iter().zip(arrived) {
        link(&folder, &item.file.name, &arrived.blob)?;
    }
    for (path, digest) in &place.known {
        let blob = repository.join("blobs").join(digest.hex());
        if blob.is_file() {
            link(&folder, path, &blob)?;
        }
    }
    let reference = repository.join("refs").join(&place.revision);
    write_atomically(&reference, place.commit.as_bytes()).map_err(PullError::io("write", reference))
}

/// A relative link from a snapshot to a blob, as Hugging Face's tools make it.
fn link(folder: &Path, path: &str, blob: &Path) -> Result<(), PullError> {
    let inner = Path::new(path);
    let name = blob.file_name().unwrap_or_default();
    // The list of files was read with this in mind; a link never leads out of the cache, whoever made it.
    if !inner.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(StoreError::BadRequest("a file of the repository has no good name".to_owned()).into());
    }
    let at = folder.join(inner);
    let up: PathBuf = std::iter::repeat_n("..", inner.components().count() + 1).collect();
    let target = up.join("blobs").join(name);
    let parent = at.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(PullError::io("make the folder", parent))?;
    if fs::read_link(&at).is_ok_and(|old| old == target) {
        return Ok(());
    }
    match fs::remove_file(&at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(PullError::io("replace", at)(error));
        }
        _ => {}
    }
    match symlink(&target, &at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(PullError::io("link", at)(error)),
        _ => Ok(()),
    }
}

/// Writes the manifest of a registry's model; `false` when one of its blobs is gone again, which somebody
/// removed together with another model.
pub(super) fn manifest(own: &Layout, name: &ModelName, text: &[u8]) -> Result<bool, PullError> {
    let lock = StoreLock::acquire(own)?;
    let unreadable =
        |error: io::Error| StoreError::BadRequest(format!("the manifest cannot be read: {error}"));
    let (manifest, _) = Layout::parse(text).map_err(unreadable)?;
    let whole = |digest: &str, bytes: u64| {
        let blob = Digest::parse(digest).ok().map(|digest| own.blob(&digest));
        blob.and_then(|blob| fs::metadata(blob).ok()).is_some_and(|about| about.len() == bytes)
    };
    if !layers_of(&manifest).iter().all(|layer| whole(&layer.digest, layer.size)) {
        return Ok(false);
    }
    write_manifest(own, &lock, name, text)?;
    Ok(true)
}

/// Makes a model of files that have no manifest.
pub(super) fn files(
    store: &Store,
    name: &ModelName,
    items: &[Item],
    arrived: &[Arrived],
) -> Result<(), PullError> {
    let digest = |arrived: &Arrived| arrived.digest.as_ref().map(ToString::to_string).unwrap_or_default();
    let files: BTreeMap<String, String> =
        items.iter().zip(arrived).map(|(item, arrived)| (item.file.name.clone(), digest(arrived))).collect();
    let request =
        CreateRequest { model: Some(name.to_string()), files: Some(files), ..CreateRequest::default() };
    store.create(&request, &mut |_| {})?;
    Ok(())
}

//! Changes of our own store that need no new content: copy, delete, and the links by which shards are opened.

use hypura_core::gguf::ShardName;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::create::link_blob;
use super::digest::Digest;
use super::entry::broken;
use super::files::{shown_name, write_atomically};
use super::gather::Source;
use super::layout::{Layer, Layout, Manifest};
use super::lock::StoreLock;
use super::name::ModelName;
use super::unusable::Unusable;
use super::{ModelEntry, Origin, Store, StoreError};

/// Folder of the store with links to shards, one folder a model.
const SHARDS_FOLDER: &str = "shards";

impl Store {
    /// Gives a model a second name, in our own store. No weights are copied: blobs are shared, and files of other stores
    /// are linked.
    ///
    /// # Errors
    /// [`StoreError::BadRequest`] for names that are none, [`StoreError::NotFound`], or what the system says.
    pub fn copy(&self, source: &str, destination: &str) -> Result<(), StoreError> {
        let bad = |what: &str, text: &str| StoreError::BadRequest(format!("{what} \"{text}\" is invalid"));
        let from = ModelName::parse(source).map_err(|_| bad("source", source))?;
        let to = ModelName::parse(destination).map_err(|_| bad("destination", destination))?;
        let missing = || StoreError::NotFound(source.to_owned());
        let found = self.find(&from).ok_or_else(missing)?;
        if found.name == to {
            return Ok(());
        }
        if let Source::Manifest(layout, path) = &found.source {
            return self.copy_manifest(layout, path, &found.name, &to);
        }
        let entry = self.resolve_name(&found.name, source)?;
        self.save_copy(&entry, &to)
    }

    /// Copies a manifest as it is, with all its layers: also those that this program cannot use.
    fn copy_manifest(
        &self,
        from: &Layout,
        path: &Path,
        name: &ModelName,
        to: &ModelName,
    ) -> Result<(), StoreError> {
        let own = self.own()?;
        let lock = StoreLock::acquire(&own)?;
        let unreadable = |error| broken(name)(Unusable::Manifest(error));
        let text = Layout::read_text(path).map_err(unreadable)?;
        let (manifest, _) = Layout::parse(&text).map_err(unreadable)?;
        for layer in manifest.layers.iter().chain([&manifest.config]) {
            let file = from.layer_file(layer).map_err(broken(name))?;
            let digest = Digest::parse(&layer.digest)?;
            link_blob(&own, &file, &digest, layer.size)?;
        }
        write_manifest(&own, &lock, to, &text)
    }

    /// Deletes a model of our own store, and the blobs that no other model shares.
    ///
    /// # Errors
    /// [`StoreError::InvalidName`] (`name "x" is invalid`), [`StoreError::NotFound`], and [`StoreError::Foreign`] for
    /// models of other programs.
    pub fn delete(&self, text: &str) -> Result<(), StoreError> {
        let invalid = |_| StoreError::BadRequest(format!("name \"{text}\" is invalid"));
        let name = ModelName::parse(text).map_err(invalid)?;
        let layout = self.own()?;
        let Some(path) = layout.find(&name) else {
            return Err(match self.find(&name) {
                Some(found) => foreign(&found.name, found.origin),
                None => StoreError::NotFound(text.to_owned()),
            });
        };
        let lock = StoreLock::acquire(&layout)?;
        let manifest = Layout::read(&path).ok().map(|(manifest, _)| manifest);
        fs::remove_file(&path).map_err(StoreError::io("delete", &path))?;
        remove_empty_parents(&path, &layout.root().join("manifests"));
        // A manifest that cannot be read names no blobs.
        if let Some(manifest) = manifest {
            remove_unused(&layout, &lock, &manifest);
        }
        Ok(())
    }
}

fn foreign(name: &ModelName, origin: Origin) -> StoreError {
    StoreError::Foreign { name: name.to_string(), owner: origin.title(), way_out: origin.way_out() }
}

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

/// Removes those blobs of a manifest that no manifest names any more. What cannot be removed stays: it is only space.
fn remove_unused(layout: &Layout, _lock: &StoreLock, removed: &Manifest) {
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

fn remove_empty_parents(path: &Path, top: &Path) {
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != top) {
        // Fails, as it should, on the first one that is not empty.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
}

fn shards_folder(root: &Path, hex: &str) -> PathBuf {
    root.join(SHARDS_FOLDER).join(hex)
}

/// See [`Store::open_path`].
pub(super) fn open_path(own: Option<&Path>, entry: &ModelEntry) -> Result<PathBuf, StoreError> {
    let Some(first) = entry.files.first() else {
        return Err(broken(&entry.name)(Unusable::NoWeights));
    };
    let count = entry.files.len() as u32;
    let named = ShardName::parse(&shown_name(first)).is_some_and(|shard| shard.count == count);
    if count == 1 || named {
        return Ok(first.clone());
    }
    let own = own.ok_or(StoreError::NoHome)?;
    // Blobs are named by their digest; the first one's name stands for the model.
    let hex = shown_name(first);
    let hex = hex.strip_prefix("sha256-").unwrap_or(&hex).to_owned();
    let folder = shards_folder(own, &hex);
    fs::create_dir_all(&folder).map_err(StoreError::io("make the folder", &folder))?;
    let shard = ShardName { prefix: "model".to_owned(), index: 0, count };
    for (index, file) in (0..count).zip(&entry.files) {
        let link = folder.join(shard.sibling(index));
        if fs::read_link(&link).is_ok_and(|target| target == *file) {
            continue;
        }
        let _ = fs::remove_file(&link);
        match symlink(file, &link) {
            // Another process made the same link.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::io("link", &link)(error));
            }
            _ => {}
        }
    }
    Ok(folder.join(shard.sibling(0)))
}

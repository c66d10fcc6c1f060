//! Changes of our own store that need no new content: copy and delete.

use std::fs;
use std::path::Path;

use super::blobs::link_blob;
use super::digest::Digest;
use super::entry::broken;
use super::gather::{Found, Source};
use super::hub;
use super::layout::Layout;
use super::lock::StoreLock;
use super::name::ModelName;
use super::naming::{remove_unused, write_manifest};
use super::unusable::Unusable;
use super::{Origin, Store, StoreError};

impl Store {
    /// Gives a model a second name, in our own store. No weights are copied: blobs are shared, and files of
    /// other stores are linked.
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

    /// Deletes a model of our own store, and the blobs that no other model shares; a model of Hugging Face's
    /// cache; or what a pull left of one that is not whole.
    ///
    /// # Errors
    /// [`StoreError::InvalidName`] (`name "x" is invalid`), [`StoreError::NotFound`], and
    /// [`StoreError::Foreign`] for models of other programs.
    pub fn delete(&self, text: &str) -> Result<(), StoreError> {
        let invalid = |_| StoreError::BadRequest(format!("name \"{text}\" is invalid"));
        let name = ModelName::parse(text).map_err(invalid)?;
        let layout = self.own()?;
        let Some(path) = layout.find(&name) else {
            return self.delete_elsewhere(&name, text);
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

    /// Deletes what is in no store of ours.
    fn delete_elsewhere(&self, name: &ModelName, text: &str) -> Result<(), StoreError> {
        match self.find(name) {
            Some(Found { origin: Origin::HuggingFace, source: Source::Files(files), projector, .. }) => {
                hub::delete(&files, projector.as_deref())
            }
            Some(found) => Err(foreign(&found.name, found.origin)),
            None => match self.pulls().remove_partials(Some(text)) {
                Ok((_, 1..)) => {
                    let why = format!("model '{text}' is being pulled: stop that first");
                    Err(StoreError::BadRequest(why))
                }
                Ok((1.., 0)) => Ok(()),
                _ => Err(StoreError::NotFound(text.to_owned())),
            },
        }
    }
}

fn foreign(name: &ModelName, origin: Origin) -> StoreError {
    StoreError::Foreign { name: name.to_string(), owner: origin.title(), way_out: origin.way_out() }
}

fn remove_empty_parents(path: &Path, top: &Path) {
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != top) {
        // Fails, as it should, on the first one that is not empty.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
}

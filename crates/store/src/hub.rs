//! Deleting from Hugging Face's cache: the links of a model in all snapshots, and the blobs that no link
//! needs any more. Its tools see a cache in which the files were never fetched.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::layout::children;

/// Folders below folders that are looked into.
const MOST_DEPTH: usize = 8;

/// Deletes the files of a model, given as links in a snapshot. Its projector stays as long as the snapshot
/// has another model.
pub(super) fn delete(files: &[PathBuf], projector: Option<&Path>) -> Result<(), StoreError> {
    let Some(repository) = files.first().and_then(|file| repository_of(file)) else { return Ok(()) };
    let links = links_below(&repository.join("snapshots"), MOST_DEPTH);
    let mut blobs: HashSet<PathBuf> = files.iter().filter_map(|file| fs::canonicalize(file).ok()).collect();
    let is_model = |link: &PathBuf| link.extension().is_some_and(|end| end == "gguf");
    let others = links.iter().filter(|(link, blob)| is_model(link) && !blobs.contains(blob));
    let projector = projector.and_then(|path| fs::canonicalize(path).ok());
    if others.into_iter().all(|(_, blob)| Some(blob) == projector.as_ref()) {
        blobs.extend(projector);
    }
    for (link, _) in links.iter().filter(|(_, blob)| blobs.contains(blob)) {
        fs::remove_file(link).map_err(StoreError::io("delete", link))?;
    }
    // A blob that lies elsewhere is not the cache's.
    for blob in blobs.iter().filter(|blob| blob.parent().is_some_and(|folder| folder.ends_with("blobs"))) {
        fs::remove_file(blob).map_err(StoreError::io("delete", blob))?;
    }
    remove_empty(&repository.join("snapshots"), MOST_DEPTH);
    Ok(())
}

/// `…/models--ORG--REPO` of a file in one of its snapshots.
fn repository_of(file: &Path) -> Option<&Path> {
    let snapshots =
        file.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"));
    snapshots?.parent()
}

/// All links to files below a folder, and where they lead.
fn links_below(folder: &Path, depth: usize) -> Vec<(PathBuf, PathBuf)> {
    let mut all = Vec::new();
    for (_, path) in children(folder) {
        match fs::symlink_metadata(&path) {
            Ok(about) if about.is_dir() && depth > 1 => all.extend(links_below(&path, depth - 1)),
            Ok(about) if !about.is_dir() => {
                all.extend(fs::canonicalize(&path).ok().map(|blob| (path, blob)));
            }
            _ => {}
        }
    }
    all
}

/// Removes folders that have nothing in them.
fn remove_empty(folder: &Path, depth: usize) {
    for (_, path) in children(folder) {
        if depth > 1 && fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir()) {
            remove_empty(&path, depth - 1);
            // Fails, as it should, where something is left.
            let _ = fs::remove_dir(&path);
        }
    }
}

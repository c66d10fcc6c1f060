//! Opening a model in shards: llama.cpp finds them beside each other by their names, which blobs do not have.

use hypura_core::gguf::ShardName;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::entry::{ModelEntry, broken};
use super::files::{make_private_folder, shown_name};
use super::unusable::Unusable;

/// Folder of the store with links to shards, one folder a model.
const SHARDS_FOLDER: &str = "shards";

/// The folder of links by which a model in shards is opened; its first blob stands for it.
pub(super) fn shards_folder(root: &Path, hex: &str) -> PathBuf {
    root.join(SHARDS_FOLDER).join(hex)
}

/// See [`crate::Store::open_path`].
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
    make_private_folder(&folder).map_err(StoreError::io("make the folder", &folder))?;
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

//! The cache folder, private to its owner, and how a file in it is replaced.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Where profiles, records of runs and rates of workers are kept: `$XDG_CACHE_HOME/hypura`, otherwise the
/// system's place in the home directory. `None` when there is no home.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = || {
        let place = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        absolute("HOME").map(|home| home.join(place))
    };
    absolute("XDG_CACHE_HOME").or_else(usual).map(|folder| folder.join("hypura"))
}

/// Makes a folder that nobody else may look into, where there is none.
pub(super) fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes beside and renames, so that another process never reads half a file.
pub(super) fn write(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    path.parent().map_or(Ok(()), create)?;
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&beside, serde_json::to_vec_pretty(value)?)?;
    fs::rename(&beside, path).inspect_err(|_| drop(fs::remove_file(&beside)))
}

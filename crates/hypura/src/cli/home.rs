//! Paths as people write them.

use std::path::{Path, PathBuf};

/// A path with the home folder in place of a leading `~/`.
pub(super) fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(below), Some(home)) => Path::new(&home).join(below),
        _ => PathBuf::from(path),
    }
}

//! Backends that come as libraries of their own, beside those that were compiled in: `libggml-NAME.so`, built
//! from the same source as the program (`make backend`), found in one folder. Those of the CPU are
//! `kernels`: one of them is used, the others are for other processors.
//!
//! They use the program's own copy of ggml, whose symbols it exports (`crates/hypura/build.rs`). ggml asks a
//! library for the version of its interface before it registers its devices.

use crate::{log, sys};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

/// Names that folder. A program without it looks into [`FOLDER`] beside its own folder.
pub const FOLDER_VARIABLE: &str = "HYPURA_BACKENDS";
const FOLDER: &str = "lib/hypura";

static LOAD: Once = Once::new();
static REFUSED: Mutex<Vec<Refused>> = Mutex::new(Vec::new());

/// A library that is there and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its file.
    pub path: PathBuf,
    /// Why, in the words of ggml or the system.
    pub reason: String,
}

/// The folder of libraries, whether it exists or not; `None` where the program does not know its own place.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(FOLDER_VARIABLE).filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.parent()?.join(FOLDER))
}

/// The libraries that were found and could not be used.
#[must_use]
pub fn refused() -> Vec<Refused> {
    load();
    REFUSED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Loads all of them, once in a process, when GPUs are first asked for: a process that wants none pays for
/// none.
pub(crate) fn load() {
    LOAD.call_once(|| {
        log::install();
        let refused = found(folder().as_deref()).into_iter().filter_map(|path| load_one(path).err());
        *REFUSED.lock().unwrap_or_else(PoisonError::into_inner) = refused.collect();
    });
}

/// Backends for GPUs in a folder, in the order of their names.
fn found(folder: Option<&Path>) -> Vec<PathBuf> {
    let mut paths = all_in(folder);
    paths.retain(|path| kernels_name(path).is_none());
    paths
}

/// Libraries with kernels for the CPU in a folder, in the order of their names.
pub(crate) fn kernels_in(folder: Option<&Path>) -> Vec<PathBuf> {
    let mut paths = all_in(folder);
    paths.retain(|path| kernels_name(path).is_some());
    paths
}

/// `NAME` of `libggml-cpu-NAME.so`; `None` for any other file.
pub(crate) fn kernels_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix("libggml-cpu-")?.strip_suffix(".so")
}

fn all_in(folder: Option<&Path>) -> Vec<PathBuf> {
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    let mut paths: Vec<PathBuf> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_backend));
    paths.sort();
    paths
}

fn is_backend(name: &str) -> bool {
    name.strip_prefix("libggml-").is_some_and(|rest| rest.ends_with(".so"))
}

fn load_one(path: PathBuf) -> Result<(), Refused> {
    let Ok(name) = CString::new(path.as_os_str().as_encoded_bytes()) else {
        return Err(Refused { path, reason: "its name cannot be given to the system".to_owned() });
    };
    log::clear();
    // SAFETY: a NUL-terminated string. What the library runs when it is loaded is as trusted as the program:
    // both were put there by the same person.
    let registry = unsafe { sys::ggml_backend_load(name.as_ptr()) };
    if registry.is_null() { Err(Refused { path, reason: log::take() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes when it is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hypura-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn libraries_of_backends_are_found_by_name_in_order() {
        let folder = Folder::new("libraries");
        let kernels = ["libggml-cpu-zen4.so", "libggml-cpu-haswell.so"];
        let others = ["libggml-vulkan.so", "libggml-cuda.so", "libggml-cuda.so.xz", "ggml-cpu.so", "notes"];
        for name in kernels.iter().chain(&others) {
            std::fs::write(folder.0.join(name), "").unwrap();
        }
        let names = |paths: Vec<PathBuf>| -> Vec<String> {
            paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(found(Some(&folder.0))), ["libggml-cuda.so", "libggml-vulkan.so"]);
        assert_eq!(names(kernels_in(Some(&folder.0))), ["libggml-cpu-haswell.so", "libggml-cpu-zen4.so"]);
        assert!(found(Some(&folder.0.join("absent"))).is_empty());
        assert!(found(None).is_empty() && kernels_in(None).is_empty());
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_with_the_reason() {
        let folder = Folder::new("no-library");
        let path = folder.0.join("libggml-none.so");
        std::fs::write(&path, "not a library").unwrap();
        log::install();
        let refused = load_one(path.clone()).unwrap_err();
        assert_eq!(refused.path, path);
        assert!(refused.reason.contains("libggml-none.so"), "{}", refused.reason);
    }
}

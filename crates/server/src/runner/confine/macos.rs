//! What each kind of process gives up on macOS: what a sandbox profile says.

use std::path::{Path, PathBuf};

use super::privileges::{limit_trial, no_core_files};
use super::profile::profile;
use super::{Confinement, Hold};
use crate::models::LoadOrder;

/// Confines this process, which is a runner that has read its order.
pub fn confine(order: &LoadOrder, _has_gpu: bool) -> Confinement {
    if let Some(folder) = &order.runner.kv_cache_dir {
        // What is in the way is told where the folder is used.
        let _ = std::fs::create_dir_all(folder);
    }
    let folder = order.path.parent().map(Path::to_path_buf);
    let model = &order.settings.model;
    let beside = model.projector.clone().into_iter().chain(model.draft.clone());
    held(&folder.into_iter().chain(beside).collect::<Vec<_>>(), order.runner.kv_cache_dir.as_deref())
}

/// Confines this process, which tries a template: no model, little memory, little time.
pub fn confine_trial() {
    held(&[], None);
    limit_trial();
}

/// Confines this process, which quantises a file into another one.
pub fn confine_quantizing(input: &Path, output: &Path) {
    held(&[input.to_path_buf()], output.parent());
}

/// Confines this process, which computes for another machine.
pub fn confine_worker(cache: Option<&Path>) {
    held(&[], cache);
}

fn held(read: &[PathBuf], written: Option<&Path>) -> Confinement {
    no_core_files();
    // Rules are about paths without links.
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let read: Vec<PathBuf> = read.iter().map(|path| real(path)).collect();
    let written: Vec<PathBuf> =
        written.into_iter().chain([std::env::temp_dir().as_path()]).map(real).collect();
    let hold = match hypura_engine::machine::enter_sandbox(&profile(&read, &written)) {
        Ok(()) => Hold::Yes,
        Err(error) => {
            tracing::warn!(%error, "no sandbox");
            Hold::No
        }
    };
    Confinement { files: hold, network: hold, system_calls: hold }
}

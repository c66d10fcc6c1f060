//! What each kind of process gives up on Linux.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use hypura_core::gguf::ShardName;

use super::calls::{self, Sockets, Threads};
use super::files::{devices, restrict, system};
use super::privileges::{give_up, limit_trial};
use super::{Confinement, Hold};
use crate::models::LoadOrder;

/// Confines this process, which is a runner that has read its order and has no other threads yet, but for
/// those of a GPU's driver, where there is one: those keep their view of files.
pub fn confine(order: &LoadOrder, has_gpu: bool) -> Confinement {
    if let Some(folder) = &order.runner.kv_cache_dir {
        // Only what is there can be granted. What is in the way is told where the folder is used.
        let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    }
    let model = &order.settings.model;
    let written = order.runner.kv_cache_dir.iter().cloned();
    let beside = model.projector.clone().into_iter().chain(model.draft.clone());
    let sockets = if has_gpu { Sockets::Local } else { Sockets::None };
    held(files(&order.path).into_iter().chain(beside), written, sockets)
}

/// Confines this process, which tries a template and has no other threads yet: no model, little memory,
/// little time.
pub fn confine_trial() {
    held([], [], Sockets::None);
    limit_trial();
}

/// Confines this process, which quantises a file into another one and has no other threads yet.
pub fn confine_quantizing(input: &Path, output: &Path) {
    held([input.to_path_buf()], output.parent().map(Path::to_path_buf), Sockets::None);
}

/// Confines this process, which computes for another machine and has no other threads yet, but for those of a
/// GPU's driver.
pub fn confine_worker(cache: Option<&Path>) {
    held([], cache.map(Path::to_path_buf), Sockets::Local);
}

fn held(
    read: impl IntoIterator<Item = PathBuf>,
    written: impl IntoIterator<Item = PathBuf>,
    sockets: Sockets,
) -> Confinement {
    give_up();
    let (files, tcp) = restrict(system().chain(read), written.into_iter().chain([devices()]));
    let system_calls = match calls::restrict(sockets, Threads::All) {
        Ok(()) => Hold::Yes,
        Err(error) => {
            tracing::debug!(%error, "system calls stay as they are");
            Hold::No
        }
    };
    // New sockets are refused by number; TCP on one that is there already by Landlock alone.
    let network = match (system_calls, tcp) {
        (Hold::Yes, Hold::Yes) => Hold::Yes,
        (Hold::No, Hold::No) => Hold::No,
        _ => Hold::Partly,
    };
    Confinement { files, network, system_calls }
}

/// All shards of the model.
fn files(path: &Path) -> Vec<PathBuf> {
    match path.file_name().and_then(|name| name.to_str()).and_then(ShardName::parse) {
        Some(shard) => (0..shard.count).map(|index| path.with_file_name(shard.sibling(index))).collect(),
        None => vec![path.to_path_buf()],
    }
}

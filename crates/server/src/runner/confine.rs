//! What a runner may not do: it reads files that strangers made.
//!
//! Before it reads the first byte of a model it gives up what it does not need: new privileges, writing files
//! (but for the folder of KV caches), reading others than the model's and the system's, TCP. Where the kernel
//! lacks one of these, the others hold.

use std::path::Path;

use crate::models::LoadOrder;

/// Confines this process, which is a runner that has read its order and has no other threads yet, but for
/// those of a GPU's driver, which stay as they are.
#[cfg(target_os = "linux")]
pub fn confine(order: &LoadOrder) {
    linux::limits();
    if let Err(error) = linux::file_system(order) {
        tracing::debug!(%error, "the view of the file system stays as it is");
    }
}

/// Confines this process, where the system can.
#[cfg(not(target_os = "linux"))]
pub fn confine(_: &LoadOrder) {
    ignore_limits();
}

/// Confines this process, which tries a template and has no other threads yet: no model, little memory,
/// little time.
pub fn confine_trial() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    #[cfg(target_os = "linux")]
    linux::trial();
    ignore_limits();
    let most = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    for (resource, limit) in
        [(Resource::Data, most(TRIAL_DATA_BYTES)), (Resource::Cpu, most(TRIAL_CPU_SECONDS))]
    {
        if let Err(error) = setrlimit(resource, limit) {
            tracing::debug!(%error, "a template is tried without a limit");
        }
    }
}

/// Confines this process, which quantises a file into another one and has no other threads yet.
#[cfg(target_os = "linux")]
pub fn confine_quantizing(input: &Path, output: &Path) {
    linux::quantizing(input, output);
}

/// Confines this process, which computes for another machine and has no other threads yet, but for those of a
/// GPU's driver.
#[cfg(target_os = "linux")]
pub fn confine_worker(cache: Option<&Path>) {
    linux::worker(cache);
}

/// Confines this process, where the system can.
#[cfg(not(target_os = "linux"))]
pub fn confine_worker(_: Option<&Path>) {
    ignore_limits();
}

/// Confines this process, where the system can.
#[cfg(not(target_os = "linux"))]
pub fn confine_quantizing(_: &Path, _: &Path) {
    ignore_limits();
}

/// Memory for trying a template: its stack of 256 MiB, and less beside it than a runner may take beyond its
/// budget.
const TRIAL_DATA_BYTES: u64 = 768 << 20;
/// Processor time for it. Whoever waits for it waits no longer.
const TRIAL_CPU_SECONDS: u64 = 30;

/// No file of memory is left behind by a runner that dies.
pub fn ignore_limits() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::debug!(%error, "core files may be written");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::unix::fs::DirBuilderExt as _;
    use std::path::{Path, PathBuf};

    use hypura_core::gguf::ShardName;
    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
        RulesetError, path_beneath_rules,
    };
    use rustix::process::{Signal, set_parent_process_death_signal};

    use crate::models::LoadOrder;

    /// What the kernel ends first when memory is short: any runner rather than the server.
    const OOM_SCORE: &str = "500";
    /// What programs read of a system: libraries and their data, facts about the machine.
    const SYSTEM: [&str; 9] =
        ["/proc", "/sys", "/etc", "/usr", "/lib", "/lib64", "/opt", "/nix/store", "/run/opengl-driver"];

    pub fn limits() {
        super::ignore_limits();
        // The server that started it is gone then, and nobody waits for it any more.
        if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
            tracing::debug!(%error, "the end of the server is seen by its connection only");
        }
        if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
            tracing::debug!(%error, "the kernel chooses itself what to end when memory is short");
        }
        if let Err(error) = rustix::thread::set_no_new_privs(true) {
            tracing::debug!(%error, "new privileges are possible");
        }
    }

    pub fn trial() {
        limits();
        if let Err(error) = restrict(system(), [PathBuf::from("/dev")]) {
            tracing::debug!(%error, "the view of the file system stays as it is");
        }
    }

    pub fn quantizing(input: &Path, output: &Path) {
        limits();
        let written = output.parent().map(Path::to_path_buf).into_iter().chain([PathBuf::from("/dev")]);
        if let Err(error) = restrict(system().chain([input.to_path_buf()]), written) {
            tracing::debug!(%error, "the view of the file system stays as it is");
        }
    }

    pub fn worker(cache: Option<&Path>) {
        limits();
        let written = cache.map(Path::to_path_buf).into_iter().chain([PathBuf::from("/dev")]);
        if let Err(error) = restrict(system(), written) {
            tracing::debug!(%error, "the view of the file system stays as it is");
        }
    }

    pub fn file_system(order: &LoadOrder) -> Result<(), RulesetError> {
        if let Some(folder) = &order.runner.kv_cache_dir {
            // Only what is there can be granted. What is in the way is told where the folder is used.
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        }
        let written = order.runner.kv_cache_dir.iter().cloned().chain([PathBuf::from("/dev")]);
        let model = &order.settings.model;
        let beside = model.projector.clone().into_iter().chain(model.draft.clone());
        let read = system().chain(files(order)).chain(beside);
        restrict(read, written)
    }

    fn system() -> impl Iterator<Item = PathBuf> {
        SYSTEM.iter().map(PathBuf::from).chain(hypura_engine::libraries::folder())
    }

    /// Leaves nothing but these to be read and written, and no TCP.
    fn restrict(
        read: impl IntoIterator<Item = PathBuf>,
        written: impl IntoIterator<Item = PathBuf>,
    ) -> Result<(), RulesetError> {
        const ALL: ABI = ABI::V5;
        // What this kernel does not know yet is left out.
        Ruleset::default()
            .handle_access(AccessFs::from_all(ALL))?
            .handle_access(AccessNet::from_all(ALL))?
            .create()?
            .add_rules(path_beneath_rules(read, AccessFs::from_read(ALL)))?
            .add_rules(path_beneath_rules(written, AccessFs::from_all(ALL)))?
            .restrict_self()?;
        Ok(())
    }

    /// All shards of the model.
    fn files(order: &LoadOrder) -> Vec<PathBuf> {
        let path = &order.path;
        match path.file_name().and_then(|name| name.to_str()).and_then(ShardName::parse) {
            Some(shard) => (0..shard.count).map(|index| path.with_file_name(shard.sibling(index))).collect(),
            None => vec![path.clone()],
        }
    }
}

//! What a process gives up whatever else its system knows.

/// No file of memory is left behind by a process that dies.
pub(super) fn no_core_files() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::debug!(%error, "core files may be written");
    }
}

/// Memory for trying a template: its stack of 256 MiB, and less beside it than a runner may take beyond its
/// budget.
const TRIAL_DATA_BYTES: u64 = 768 << 20;
/// Processor time for it. Whoever waits for it waits no longer.
const TRIAL_CPU_SECONDS: u64 = 30;

/// Little memory, little time.
pub(super) fn limit_trial() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let most = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    for (resource, limit) in
        [(Resource::Data, most(TRIAL_DATA_BYTES)), (Resource::Cpu, most(TRIAL_CPU_SECONDS))]
    {
        if let Err(error) = setrlimit(resource, limit) {
            tracing::debug!(%error, "a template is tried without a limit");
        }
    }
}

/// What the kernel ends first when memory is short: any runner rather than the server.
#[cfg(target_os = "linux")]
const OOM_SCORE: &str = "500";

/// No new privileges, no core files, no life after the server's.
#[cfg(target_os = "linux")]
pub(super) fn give_up() {
    use rustix::process::{Signal, set_parent_process_death_signal};
    no_core_files();
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

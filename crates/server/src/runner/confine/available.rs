//! What of a runner's limits this system has, for `hypura doctor`.

use hypura_engine::doctor::{Finding, Verdict};

#[cfg(target_os = "linux")]
use super::{Hold, calls, files};

/// Whether files, connections and system calls of a model's process can be restricted here, and its memory
/// bounded by the kernel.
#[must_use]
pub fn available() -> Vec<Finding> {
    #[cfg(target_os = "linux")]
    let confinement = judge(files::knows_files(), files::knows_tcp(), calls::is_known());
    #[cfg(not(target_os = "linux"))]
    let confinement = Finding::new("confinement", Verdict::Good, "a sandbox profile for each model");
    vec![confinement]
}

#[cfg(target_os = "linux")]
fn judge(files: Hold, tcp: Hold, calls: bool) -> Finding {
    let known = [
        (files != Hold::No, "files (Landlock)"),
        (tcp != Hold::No, "TCP (Landlock)"),
        (calls, "system calls (seccomp)"),
    ];
    let names = |wanted: bool| -> Vec<&str> {
        known.iter().filter(|(has, _)| *has == wanted).map(|(_, name)| *name).collect()
    };
    let (held, missing) = (names(true), names(false));
    if missing.is_empty() {
        return Finding::new("confinement", Verdict::Good, format!("of models: {}", held.join(", ")));
    }
    let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
    let found = format!("of models: {held}; not {}", missing.join(", "));
    Finding::new("confinement", Verdict::Unknown, found).fix(
        "Linux 6.7 or later with Landlock (lsm=landlock) and seccomp; in a container, a profile that allows them",
    )
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(judge(Hold::Yes, Hold::Yes, true).verdict, Verdict::Good);
        assert_eq!(judge(Hold::Partly, Hold::Yes, true).verdict, Verdict::Good);
        let older = judge(Hold::Partly, Hold::No, true);
        assert!(older.found.contains("not TCP") && older.fix.is_some(), "{older:?}");
        let none = judge(Hold::No, Hold::No, false);
        assert!(none.found.contains("of models: nothing; not files"), "{none:?}");
    }
}

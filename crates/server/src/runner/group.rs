//! A memory group (cgroup v2) for each runner, where the system has delegated a tree of groups to this
//! process: the kernel then ends a runner that takes more than it was given, before anybody else is short of
//! memory.
//!
//! Delegated is the group that this process is in if the service manager says so (`Delegate=`), or if
//! somebody who is not root may make groups in it. Groups whose children have limits may not have processes
//! themselves, so the server moves to a child of its own, `server`, beside which each runner gets one. Where
//! any of this fails, everything is as before, and runners are watched (`watch`) as they are everywhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The child that the server moves to.
const SERVER: &str = "server";

/// The tree that was delegated to this process.
pub(super) struct Groups {
    folder: PathBuf,
}

impl Groups {
    /// That of this process; the first call prepares it. `None` where there is none.
    pub fn of_process() -> Option<&'static Self> {
        static GROUPS: OnceLock<Option<Groups>> = OnceLock::new();
        let groups = GROUPS.get_or_init(|| {
            let folder = hypura_engine::machine::unified_group()?;
            if !is_delegated(&folder) {
                return None;
            }
            let prepared = Self::prepare(folder, std::process::id());
            prepared.inspect_err(|error| tracing::warn!(%error, "no memory groups for models")).ok()
        });
        groups.as_ref()
    }

    /// Makes room for groups with limits below this folder, whose only process is `server`.
    fn prepare(folder: PathBuf, server: u32) -> io::Result<Self> {
        let alone = fs::read_to_string(folder.join("cgroup.procs"))?;
        if alone.split_whitespace().any(|process| process != server.to_string()) {
            return Err(io::Error::other(format!("others are in {}", folder.display())));
        }
        let child = folder.join(SERVER);
        match fs::create_dir(&child) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        enter(&child, server)?;
        if let Err(error) = fs::write(folder.join("cgroup.subtree_control"), "+memory") {
            // As before, as far as that is possible.
            let _ = enter(&folder, server).and_then(|()| fs::remove_dir(&child));
            return Err(error);
        }
        Ok(Self { folder })
    }

    /// A group for a process that was just started.
    ///
    /// # Errors
    /// When the kernel makes none.
    pub fn make(&self, process: u32) -> io::Result<Group> {
        let group = Group { folder: self.folder.join(format!("runner-{process}")), most: AtomicU64::new(0) };
        fs::create_dir(&group.folder)?;
        // All of it or nothing: a runner without some of its threads is of no use.
        let _ = fs::write(group.folder.join("memory.oom.group"), "1");
        enter(&group.folder, process)?;
        Ok(group)
    }
}

fn enter(group: &Path, process: u32) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), process.to_string())
}

/// Whether this process may arrange groups below its own.
fn is_delegated(folder: &Path) -> bool {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(folder, *name, &mut value).is_ok_and(|length| &value[..length] == b"1")
    });
    // Root may write everywhere, also where the service manager arranges things.
    let owned = || {
        let writable =
            rustix::fs::access(folder.join("cgroup.subtree_control"), rustix::fs::Access::WRITE_OK);
        !rustix::process::geteuid().is_root() && writable.is_ok()
    };
    controllers.split_whitespace().any(|controller| controller == "memory") && (marked || owned())
}

/// The group of a runner. Dropping it removes it, once its process is gone.
pub(super) struct Group {
    folder: PathBuf,
    /// Bytes, as was written last.
    most: AtomicU64,
}

impl Group {
    /// Bytes that it may take from now on.
    pub fn allow(&self, bytes: u64) {
        if self.most.swap(bytes, Ordering::Relaxed) != bytes
            && let Err(error) = fs::write(self.folder.join("memory.max"), bytes.to_string())
        {
            tracing::debug!(%error, "the limit of a model's memory stays");
        }
    }

    /// The limit that the kernel ended its process for, in bytes.
    pub fn exceeded(&self) -> Option<u64> {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        kills.trim().parse::<u64>().is_ok_and(|kills| kills > 0).then(|| self.most.load(Ordering::Relaxed))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            tracing::debug!(%error, "a group stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder like a group's, whose files are only files.
    fn tree(processes: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.procs"), processes).unwrap();
        folder
    }

    fn text(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap_or_default()
    }

    #[test]
    fn the_server_moves_aside_and_each_runner_has_a_group() {
        let tree = tree("7\n");
        let groups = Groups::prepare(tree.path().to_owned(), 7).unwrap();
        assert_eq!(text(tree.path(), "server/cgroup.procs"), "7");
        assert_eq!(text(tree.path(), "cgroup.subtree_control"), "+memory");
        let group = groups.make(8).unwrap();
        let folder = tree.path().join("runner-8");
        assert_eq!(
            (text(&folder, "cgroup.procs"), text(&folder, "memory.oom.group")),
            ("8".into(), "1".into())
        );
        group.allow(5 << 20);
        assert_eq!(text(&folder, "memory.max"), (5 << 20).to_string());
        fs::remove_file(folder.join("memory.max")).unwrap();
        group.allow(5 << 20);
        assert_eq!(text(&folder, "memory.max"), "", "written when it changes");
        assert_eq!(group.exceeded(), None);
        fs::write(folder.join("memory.events"), "low 0\nmax 9\noom 1\noom_kill 0\noom_group_kill 0\n")
            .unwrap();
        assert_eq!(group.exceeded(), None);
        fs::write(folder.join("memory.events"), "oom 1\noom_kill 3\noom_group_kill 1\n").unwrap();
        assert_eq!(group.exceeded(), Some(5 << 20));
    }

    #[test]
    fn a_group_with_others_in_it_stays_as_it_is() {
        let tree = tree("7\n9\n");
        assert!(Groups::prepare(tree.path().to_owned(), 7).is_err());
        assert!(!tree.path().join("server").exists());
    }

    #[test]
    fn a_group_that_was_not_delegated_is_left_alone() {
        let tree = tree("");
        assert!(!is_delegated(tree.path()), "there is no controller");
        fs::write(tree.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(tree.path().join("cgroup.subtree_control"), "").unwrap();
        assert_eq!(is_delegated(tree.path()), !rustix::process::geteuid().is_root(), "nobody said so");
    }
}

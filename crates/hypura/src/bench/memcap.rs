//! A memory control group around one process, page cache included: how a machine with less memory is had on
//! one with more. Makes the group, reads its peak, and removes it again.
//!
//! Only root may do this. A group outlives nothing: dropping it removes it, after its process is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the kernel shows control groups.
const ROOT: &str = "/sys/fs/cgroup";

/// Why there is no such group.
#[derive(Debug, thiserror::Error)]
pub enum MemcapError {
    /// No memory controller.
    #[error(
        "--memcap needs Linux with a memory control group, and {ROOT} has none: leave --memcap out and use --memory"
    )]
    NoController,
    /// Not allowed, or something else.
    #[error("--memcap cannot {what} {}: {source}; run as root, or leave --memcap out and use --memory", path.display())]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The two interfaces, by the names of their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    const fn name(self) -> &'static str {
        match self {
            Self::V1 => "cgroup v1",
            Self::V2 => "cgroup v2",
        }
    }

    const fn limit(self) -> &'static str {
        match self {
            Self::V1 => "memory.limit_in_bytes",
            Self::V2 => "memory.max",
        }
    }

    const fn peak(self) -> &'static str {
        match self {
            Self::V1 => "memory.max_usage_in_bytes",
            Self::V2 => "memory.peak",
        }
    }

    /// The file that counts processes killed for want of memory.
    const fn kills(self) -> &'static str {
        match self {
            Self::V1 => "memory.oom_control",
            Self::V2 => "memory.events",
        }
    }
}

/// A memory control group of ours.
#[derive(Debug)]
pub struct Memcap {
    folder: PathBuf,
    version: Version,
}

impl Memcap {
    /// Makes a group that holds its processes and their page cache to `limit_bytes`, without swap.
    ///
    /// # Errors
    /// [`MemcapError`] with the way out.
    pub fn new(limit_bytes: u64) -> Result<Self, MemcapError> {
        Self::below(Path::new(ROOT), limit_bytes)
    }

    fn below(root: &Path, limit_bytes: u64) -> Result<Self, MemcapError> {
        let (parent, version) = controller(root)?;
        if version == Version::V2 {
            let control = parent.join("cgroup.subtree_control");
            if !has_word(&fs::read_to_string(&control).unwrap_or_default(), "memory") {
                write(&control, "+memory", "switch the memory controller on in")?;
            }
        }
        let folder = parent.join(format!("hypura-bench-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|source| MemcapError::Refused {
            what: "create",
            path: folder.clone(),
            source,
        })?;
        // From here on dropping it removes the folder.
        let group = Self { folder, version };
        write(&group.folder.join(version.limit()), &limit_bytes.to_string(), "set the limit in")?;
        if version == Version::V2 {
            // Kernels without swap have no such file; then there is nothing to forbid.
            let _ = fs::write(group.folder.join("memory.swap.max"), "0");
        }
        Ok(group)
    }

    /// `cgroup v1` or `cgroup v2`.
    #[must_use]
    pub const fn version(&self) -> &'static str {
        self.version.name()
    }

    /// Puts a process into the group. What it took before stays charged elsewhere.
    ///
    /// # Errors
    /// [`MemcapError::Refused`].
    pub fn add(&self, process: u32) -> Result<(), MemcapError> {
        write(&self.folder.join("cgroup.procs"), &process.to_string(), "move a process into")
    }

    /// The most that was charged to the group so far; `None` where the kernel does not say (v2 before Linux
    /// 5.19).
    #[must_use]
    pub fn peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join(self.version.peak())).ok()?.trim().parse().ok()
    }

    /// Whether the kernel killed a process of the group because it wanted more than the limit.
    #[must_use]
    pub fn killed(&self) -> bool {
        fs::read_to_string(self.folder.join(self.version.kills())).is_ok_and(|text| kills(&text) > 0)
    }
}

impl Drop for Memcap {
    fn drop(&mut self) {
        // A process that just ended may still be counted for a moment.
        for _ in 0..50 {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => break,
            }
        }
        if self.folder.exists() {
            eprintln!("hypura: could not remove {}", self.folder.display());
        }
    }
}

/// The folder that holds memory groups, and how it speaks.
fn controller(root: &Path) -> Result<(PathBuf, Version), MemcapError> {
    let v1 = root.join("memory");
    if v1.join(Version::V1.limit()).is_file() {
        return Ok((v1, Version::V1));
    }
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    if has_word(&controllers, "memory") {
        return Ok((root.to_owned(), Version::V2));
    }
    Err(MemcapError::NoController)
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace().any(|found| found == word)
}

/// The line `oom_kill N`.
fn kills(text: &str) -> u64 {
    let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    text.lines().find_map(count).unwrap_or(0)
}

fn write(path: &Path, text: &str, what: &'static str) -> Result<(), MemcapError> {
    fs::write(path, text).map_err(|source| MemcapError::Refused { what, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_controller_is_found_in_both_interfaces() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(controller(root.path()), Err(MemcapError::NoController)));
        fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory\n").unwrap();
        assert_eq!(controller(root.path()).unwrap(), (root.path().to_owned(), Version::V2));
        let v1 = root.path().join("memory");
        fs::create_dir(&v1).unwrap();
        fs::write(v1.join("memory.limit_in_bytes"), "9").unwrap();
        assert_eq!(controller(root.path()).unwrap(), (v1, Version::V1));
    }

    #[test]
    fn killed_processes_are_counted() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills("low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(kills("low 0\n"), 0);
    }

    #[test]
    fn without_rights_the_error_names_the_way_out() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "memory").unwrap();
        fs::create_dir(root.path().join("cgroup.subtree_control")).unwrap();
        let error = Memcap::below(root.path(), 1 << 30).unwrap_err().to_string();
        assert!(error.contains("--memcap cannot") && error.contains("run as root"), "{error}");
    }

    #[test]
    fn a_group_holds_a_process_and_is_removed() {
        // Only root on Linux can see this work.
        let Ok(group) = Memcap::new(64 << 20) else { return };
        let folder = group.folder.clone();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        group.add(child.id()).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert!(!group.killed());
        drop(group);
        assert!(!folder.exists());
    }
}

//! How much memory there is, truthfully: the machine's, and what the control groups around this process leave
//! of it.
//!
//! | file | job |
//! |---|---|
//! | `cgroup` | finding and reading memory limits of cgroup v1 and v2 (pure: text in, numbers out) |

#[cfg(any(target_os = "linux", test))]
mod cgroup;

use std::io;
use std::path::PathBuf;

#[cfg(target_os = "linux")]
pub(crate) use cgroup::tightest_limit;

use crate::platform;

/// Memory of the machine, and the tightest limit on this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// RAM of the machine, in bytes.
    pub total_bytes: u64,
    /// What can be had without swapping, in bytes: `MemAvailable` on Linux; free, file-backed and purgeable
    /// pages on macOS.
    pub available_bytes: u64,
    /// The control group that leaves least room, if any has a limit.
    pub limit: Option<MemoryLimit>,
}

/// The memory limit of a control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The limit, in bytes.
    pub limit_bytes: u64,
    /// What its processes use that cannot be reclaimed, in bytes: its usage less its file cache.
    pub used_bytes: u64,
    /// Its folder.
    pub group: PathBuf,
}

impl MemoryLimit {
    /// What the limit leaves, in bytes.
    pub fn room_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }
}

impl Memory {
    /// What this process can still take, in bytes: the smaller of what the machine has and what its limits
    /// leave.
    pub fn room_bytes(&self) -> u64 {
        let room = self.limit.as_ref().map_or(u64::MAX, MemoryLimit::room_bytes);
        self.available_bytes.min(room)
    }
}

/// Looks at the memory of this machine now.
pub fn memory_available() -> io::Result<Memory> {
    platform::memory()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_some_memory() {
        let memory = memory_available().unwrap();
        assert!(memory.total_bytes >= memory.available_bytes);
        assert!(memory.room_bytes() > 0 && memory.room_bytes() <= memory.available_bytes);
    }

    #[test]
    fn the_tighter_of_machine_and_limit_counts() {
        let limit =
            |limit_bytes, used_bytes| Some(MemoryLimit { limit_bytes, used_bytes, group: PathBuf::new() });
        let with = |limit| Memory { total_bytes: 100, available_bytes: 50, limit }.room_bytes();
        assert_eq!(with(None), 50);
        assert_eq!(with(limit(80, 10)), 50);
        assert_eq!(with(limit(80, 70)), 10);
        assert_eq!(with(limit(80, 90)), 0);
    }
}

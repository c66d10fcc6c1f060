//! Memory of a machine, and the limit that leaves least of it.

use std::path::PathBuf;

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

//! What this machine has and what this process has used: the numbers behind the default budget and the
//! reports.

pub use hypura_storage::disk::{clone_range, free_bytes};
#[cfg(target_os = "linux")]
pub use hypura_storage::memory::unified_group;
pub use hypura_storage::memory::{Memory, MemoryLimit, memory_available};
#[cfg(target_os = "macos")]
pub use hypura_storage::process::enter_sandbox;
pub use hypura_storage::process::{own_memory, peak_rss_bytes, storage_read_bytes};
pub use hypura_storage::threads::idle_time;

/// Least headroom on a machine that can spare it, in bytes.
const LEAST_HEADROOM: u64 = 512 << 20;
/// Headroom as a share of the room, as one part in this many.
const HEADROOM_SHARE: u64 = 20;

/// The budget of a process that may still take `room_bytes`: all of it less headroom for others, which is 5%
/// and at least 512 MiB, but never more than half (tiny machines).
#[must_use]
pub fn default_budget_bytes(room_bytes: u64) -> u64 {
    let headroom = (room_bytes / HEADROOM_SHARE).max(LEAST_HEADROOM).min(room_bytes / 2);
    room_bytes - headroom
}

/// The memory that a share of the machine refers to: RAM, or the limit on this process where that is smaller.
#[must_use]
pub fn machine_bytes(memory: &Memory) -> u64 {
    memory.limit.as_ref().map_or(memory.total_bytes, |limit| limit.limit_bytes.min(memory.total_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn headroom_is_a_share_with_a_least_and_a_most() {
        assert_eq!(default_budget_bytes(100 * GIB), 95 * GIB);
        assert_eq!(default_budget_bytes(8 * GIB), 8 * GIB - LEAST_HEADROOM);
        assert_eq!(default_budget_bytes(GIB), GIB / 2);
        assert_eq!(default_budget_bytes(100 << 20), 50 << 20);
        assert_eq!(default_budget_bytes(0), 0);
        assert!(default_budget_bytes(u64::MAX) < u64::MAX);
    }

    #[test]
    fn a_limit_below_the_machine_is_the_machine() {
        let memory = |limit: Option<u64>| Memory {
            total_bytes: 100,
            available_bytes: 50,
            limit: limit.map(|limit_bytes| MemoryLimit {
                limit_bytes,
                used_bytes: 0,
                group: std::path::PathBuf::new(),
            }),
        };
        assert_eq!(machine_bytes(&memory(None)), 100);
        assert_eq!(machine_bytes(&memory(Some(60))), 60);
        assert_eq!(machine_bytes(&memory(Some(600))), 100);
    }
}

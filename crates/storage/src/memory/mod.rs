//! How much memory there is, truthfully: the machine's, and what the control groups around this process leave
//! of it.
//!
//! | file | job |
//! |---|---|
//! | `cgroup` | finding and reading memory limits of cgroup v1 and v2 (pure: text in, numbers out) |
//! | `facts` | what was found |

#[cfg(any(target_os = "linux", test))]
pub(crate) mod cgroup;
pub(crate) mod facts;

use std::io;

pub use facts::{Memory, MemoryLimit};

use crate::platform;

/// Looks at the memory of this machine now.
pub fn memory_available() -> io::Result<Memory> {
    platform::memory()
}

/// The folder of the control group (v2) that this process is in, where there is one.
#[cfg(target_os = "linux")]
#[must_use]
pub fn unified_group() -> Option<std::path::PathBuf> {
    let read = |name: &str| std::fs::read_to_string(name).ok();
    cgroup::unified_group(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

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

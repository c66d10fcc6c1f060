//! What the kernel allows and how it is set.

use hypura_core::plan::human_bytes;
use hypura_storage::{ReaderConfig, ReaderKind, open_reader};
use std::fs;

use super::finding::{Finding, Verdict};

pub(super) fn examine() -> Vec<Finding> {
    std::iter::once(io_uring()).chain(memlock()).chain(huge_pages()).collect()
}

fn io_uring() -> Finding {
    if !cfg!(target_os = "linux") {
        return Finding::new("io_uring", Verdict::Good, "not on this system; reads use threads");
    }
    match open_reader(&ReaderKind::Uring, &ReaderConfig::default()) {
        Ok(_) => Finding::new("io_uring", Verdict::Good, "usable"),
        Err(error) => Finding::new("io_uring", Verdict::Slow, error.to_string()).fix(
            "needs Linux 5.6 or later and sysctl kernel.io_uring_disabled=0; in a container, a seccomp profile that allows it",
        ),
    }
}

/// io_uring pins the memory it reads into.
fn memlock() -> Option<Finding> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    let soft = line.split_whitespace().next()?.to_owned();
    Some(match soft.parse::<u64>() {
        Err(_) => Finding::new("memlock", Verdict::Good, soft),
        Ok(bytes) if bytes >= 8 << 20 => Finding::new("memlock", Verdict::Good, human_bytes(bytes)),
        Ok(bytes) => {
            Finding::new("memlock", Verdict::Slow, human_bytes(bytes)).fix("raise it: ulimit -l unlimited")
        }
    })
}

fn huge_pages() -> Option<Finding> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let chosen = text.split('[').nth(1)?.split(']').next()?.to_owned();
    Some(if chosen == "never" {
        Finding::new("huge pages", Verdict::Slow, chosen)
            .fix("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
    } else {
        Finding::new("huge pages", Verdict::Good, chosen)
    })
}

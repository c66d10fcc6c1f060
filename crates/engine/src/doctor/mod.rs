//! What of this machine helps or hinders streaming, each with a verdict and a way out.
//!
//! Looks only; what the system does not tell is said to be unknown. Each part gathers facts and then judges
//! them in a function of its own, which tests call with facts of other machines.

mod compute;
mod disk;
mod finding;
mod gpu;
mod memory;

pub use finding::{Finding, Verdict};

use hypura_core::plan::human_bytes;
use hypura_storage::{ReaderConfig, ReaderKind, open_reader};
use std::fs;
use std::path::Path;

/// Looks at everything; `dir` is where models are.
#[must_use]
pub fn examine(dir: &Path) -> Vec<Finding> {
    let mut findings = disk::examine(dir);
    findings.push(io_uring());
    findings.extend([memlock(), huge_pages()].into_iter().flatten());
    findings.extend(memory::examine());
    findings.extend(compute::examine());
    findings.extend(gpu::examine());
    findings
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_looked_at_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let findings = examine(dir.path());
        let all = [
            "disk",
            "file system",
            "direct I/O",
            "io_uring",
            "memory",
            "cgroup",
            "kernels",
            "backends",
            "GPU",
        ];
        for what in all {
            assert!(findings.iter().any(|finding| finding.what == what), "{what}: {findings:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_as_it_should_be_comes_with_a_fix() {
        for finding in examine(&std::env::temp_dir()) {
            if matches!(finding.verdict, Verdict::Slow | Verdict::Bad) {
                assert!(finding.fix.is_some(), "{finding:?}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_bad_and_no_panic() {
        let findings = examine(Path::new("/no/such/directory"));
        assert_eq!(findings[0].verdict, Verdict::Bad);
    }
}

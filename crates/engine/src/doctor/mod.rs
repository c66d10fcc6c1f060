//! What of this machine helps or hinders streaming, each with a verdict and a way out.
//!
//! Looks only; what the system does not tell is said to be unknown. Each part gathers facts and then judges
//! them in a function of its own, which tests call with facts of other machines.

mod compute;
mod disk;
mod finding;
mod gpu;
mod kernel;
mod memory;

pub use finding::{Finding, Verdict};

use std::path::Path;

/// Looks at everything; `dir` is where models are.
#[must_use]
pub fn examine(dir: &Path) -> Vec<Finding> {
    let mut findings = disk::examine(dir);
    findings.extend(kernel::examine());
    findings.extend(memory::examine());
    findings.extend(compute::examine());
    findings.extend(gpu::examine());
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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

//! Memory of the machine, and of the control group around this process.

use hypura_core::plan::human_bytes;
use hypura_storage::memory::{Memory, MemoryLimit, memory_available};

use super::{Finding, Verdict};

/// With less, not even the resident part of a small model of experts has room beside its caches.
const LEAST_FREE: u64 = 2 << 30;

pub(super) fn examine() -> Vec<Finding> {
    match memory_available() {
        Ok(memory) => vec![machine(&memory), group(&memory)],
        Err(error) => {
            vec![
                Finding::new("memory", Verdict::Unknown, error.to_string())
                    .fix("say how much may be used with --memory"),
            ]
        }
    }
}

fn machine(memory: &Memory) -> Finding {
    let found = format!("{}, {} free", human_bytes(memory.total_bytes), human_bytes(memory.available_bytes));
    if memory.total_bytes < LEAST_FREE {
        return Finding::new("memory", Verdict::Bad, found)
            .fix("this machine has too little memory for models that are worth streaming");
    }
    if memory.available_bytes < LEAST_FREE {
        return Finding::new("memory", Verdict::Slow, found)
            .fix("close programs: every byte that is free is one that need not be read from the disk");
    }
    Finding::new("memory", Verdict::Good, found)
}

fn group(memory: &Memory) -> Finding {
    let Some(limit) = &memory.limit else { return Finding::new("cgroup", Verdict::Good, "no limit") };
    let MemoryLimit { limit_bytes, group, .. } = limit;
    let found = format!(
        "limit {}, {} left ({})",
        human_bytes(*limit_bytes),
        human_bytes(limit.room_bytes()),
        group.display()
    );
    let raise = format!(
        "raise memory.max of {} (of a container: --memory; of a service: MemoryMax=)",
        group.display()
    );
    if limit.room_bytes() < LEAST_FREE {
        return Finding::new("cgroup", Verdict::Bad, found).fix(raise);
    }
    if *limit_bytes < memory.total_bytes / 2 {
        return Finding::new("cgroup", Verdict::Slow, found).fix(format!("{raise}: the machine has more"));
    }
    Finding::new("cgroup", Verdict::Good, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn memory(total: u64, free: u64, limit: Option<(u64, u64)>) -> Memory {
        let limit = limit.map(|(limit_bytes, used_bytes)| MemoryLimit {
            limit_bytes,
            used_bytes,
            group: "/g".into(),
        });
        Memory { total_bytes: total, available_bytes: free, limit }
    }

    #[track_caller]
    fn assert_judged(finding: &Finding, verdict: Verdict) {
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        assert_eq!(finding.fix.is_some(), verdict != Verdict::Good, "{finding:?}");
    }

    #[test]
    fn a_machine_without_room_is_told() {
        assert_judged(&machine(&memory(24 * GIB, 20 * GIB, None)), Verdict::Good);
        assert_judged(&machine(&memory(24 * GIB, GIB, None)), Verdict::Slow);
        assert_judged(&machine(&memory(GIB, GIB / 2, None)), Verdict::Bad);
    }

    #[test]
    fn a_group_that_leaves_no_room_or_wastes_the_machine_is_told() {
        assert_judged(&group(&memory(24 * GIB, 20 * GIB, None)), Verdict::Good);
        assert_judged(&group(&memory(24 * GIB, 20 * GIB, Some((20 * GIB, GIB)))), Verdict::Good);
        assert_judged(&group(&memory(24 * GIB, 20 * GIB, Some((8 * GIB, GIB)))), Verdict::Slow);
        assert_judged(&group(&memory(24 * GIB, 20 * GIB, Some((20 * GIB, 19 * GIB)))), Verdict::Bad);
    }
}

//! What happens before what on a simulated device, and who did not care.
//!
//! Work of a queue happens in the order of its numbers. Between queues, and between a queue and the host,
//! there is order only where somebody waited. Every piece of work says which memory it reads and writes; a
//! piece that is handed over while unfinished work of somebody else uses the same memory, and that it is not
//! ordered behind, is a violation.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Identifies a queue of a device.
pub(super) type QueueId = usize;

/// Memory that a piece of work uses.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub span: Range<usize>,
    pub writes: bool,
}

#[derive(Debug)]
struct Pending {
    queue: QueueId,
    number: u64,
    accesses: Vec<Access>,
}

#[derive(Debug, Default)]
struct State {
    /// Work that has been handed over and is not finished.
    pending: Vec<Pending>,
    /// What a queue is ordered behind: of each other queue, work up to this number.
    behind: HashMap<(QueueId, QueueId), u64>,
    violations: Vec<String>,
    /// Graphs until one fails; none does when it is 0.
    fails_in: usize,
}

/// The order of one device.
#[derive(Debug, Default)]
pub(super) struct Order(Mutex<State>);

impl Order {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has one graph fail, the one behind `graphs` others.
    pub fn fail_behind(&self, graphs: usize) {
        self.state().fails_in = graphs + 1;
    }

    /// Whether the graph that is handed over next fails.
    pub fn graph_fails(&self) -> bool {
        let fails_in = &mut self.state().fails_in;
        let fails = *fails_in == 1;
        *fails_in = fails_in.saturating_sub(1);
        fails
    }

    /// Work is handed to a queue.
    pub fn hand_over(&self, queue: QueueId, number: u64, accesses: Vec<Access>, what: &str) {
        let mut state = self.state();
        let State { pending, behind, violations, .. } = &mut *state;
        let ordered = |other: &Pending| {
            other.queue == queue
                || behind.get(&(queue, other.queue)).is_some_and(|number| other.number <= *number)
        };
        for access in &accesses {
            for other in pending.iter().filter(|other| !ordered(other)) {
                violations.extend(conflict(access, other, what));
            }
        }
        pending.push(Pending { queue, number, accesses });
    }

    /// The host uses memory now.
    pub fn host_access(&self, span: &Range<usize>, writes: bool, what: &str) {
        let mut state = self.state();
        let access = Access { span: span.clone(), writes };
        let found: Vec<String> =
            state.pending.iter().filter_map(|other| conflict(&access, other, what)).collect();
        state.violations.extend(found);
    }

    /// A queue waits for work of another before it goes on.
    pub fn wait(&self, queue: QueueId, other: QueueId, number: u64) {
        let mut state = self.state();
        let known = state.behind.entry((queue, other)).or_default();
        *known = number.max(*known);
    }

    /// Work is finished.
    pub fn finish(&self, queue: QueueId, number: u64) {
        self.state().pending.retain(|work| (work.queue, work.number) != (queue, number));
    }

    /// Somebody broke another rule.
    pub fn violation(&self, what: String) {
        self.state().violations.push(what);
    }

    /// What was done wrong so far.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }
}

fn conflict(access: &Access, other: &Pending, what: &str) -> Option<String> {
    let overlaps = |known: &&Access| {
        known.span.start < access.span.end
            && access.span.start < known.span.end
            && (known.writes || access.writes)
    };
    let known = other.accesses.iter().find(overlaps)?;
    Some(format!("{what} uses {:x?} while queue {} is not done with {known:x?}", access.span, other.queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(span: Range<usize>) -> Vec<Access> {
        vec![Access { span, writes: false }]
    }
    fn writes(span: Range<usize>) -> Vec<Access> {
        vec![Access { span, writes: true }]
    }

    #[test]
    fn memory_in_use_may_be_read_and_not_written() {
        let order = Order::default();
        order.hand_over(0, 1, reads(0..10), "graph");
        order.host_access(&(5..6), false, "get");
        order.host_access(&(10..20), true, "set");
        assert!(order.violations().is_empty());
        order.host_access(&(9..12), true, "set");
        assert_eq!(order.violations().len(), 1);
        order.finish(0, 1);
        order.host_access(&(9..12), true, "set");
        assert_eq!(order.violations().len(), 1);
    }

    #[test]
    fn queues_are_ordered_by_waits_alone() {
        let order = Order::default();
        order.hand_over(0, 1, writes(0..10), "upload");
        order.hand_over(0, 2, writes(0..10), "upload");
        assert!(order.violations().is_empty(), "a queue is in order");
        order.wait(1, 0, 1);
        order.hand_over(1, 1, reads(0..10), "graph");
        assert_eq!(order.violations().len(), 1, "the second upload was not waited for");
        order.wait(1, 0, 2);
        order.hand_over(1, 2, reads(0..10), "graph");
        assert_eq!(order.violations().len(), 1);
    }
}

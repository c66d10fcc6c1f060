//! A first-in-first-out list of slots with O(1) removal from the middle, shared by the queue-like policies.
//!
//! Owns one node a slot. Invariant: a slot is in the list at most once; `push` and `remove` say so in debug
//! builds.

use crate::cache::SlotId;

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    older: Option<SlotId>,
    newer: Option<SlotId>,
    listed: bool,
}

/// Slots in the order they were pushed.
#[derive(Debug)]
pub(super) struct SlotList {
    nodes: Vec<Node>,
    oldest: Option<SlotId>,
    newest: Option<SlotId>,
    len: usize,
}

impl SlotList {
    pub(super) fn new(slots: u32) -> Self {
        Self { nodes: vec![Node::default(); slots as usize], oldest: None, newest: None, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, slot: SlotId) -> bool {
        self.nodes[slot.index()].listed
    }

    pub(super) fn push(&mut self, slot: SlotId) {
        debug_assert!(!self.contains(slot), "slot {} listed twice", slot.0);
        self.nodes[slot.index()] = Node { older: self.newest, newer: None, listed: true };
        match self.newest {
            None => self.oldest = Some(slot),
            Some(newest) => self.nodes[newest.index()].newer = Some(slot),
        }
        self.newest = Some(slot);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, slot: SlotId) {
        debug_assert!(self.contains(slot), "slot {} is not listed", slot.0);
        let Node { older, newer, .. } = self.nodes[slot.index()];
        match older {
            None => self.oldest = newer,
            Some(older) => self.nodes[older.index()].newer = newer,
        }
        match newer {
            None => self.newest = older,
            Some(newer) => self.nodes[newer.index()].older = older,
        }
        self.nodes[slot.index()] = Node::default();
        self.len -= 1;
    }

    pub(super) fn oldest(&self) -> Option<SlotId> {
        self.oldest
    }

    /// The slot pushed next after `slot`.
    pub(super) fn newer_than(&self, slot: SlotId) -> Option<SlotId> {
        self.nodes[slot.index()].newer
    }

    /// From the oldest to the newest.
    pub(super) fn iter(&self) -> impl Iterator<Item = SlotId> + '_ {
        std::iter::successors(self.oldest, |slot| self.newer_than(*slot))
    }
}

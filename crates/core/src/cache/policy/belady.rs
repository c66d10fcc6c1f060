//! The optimum that no real policy can beat: evict what is needed again last. Belady, "A study of replacement
//! algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966.
//!
//! Weakness: it needs the future, so it exists for the simulator only, as the ceiling of a trace.
//!
//! The lookups must come exactly as announced. A victim search scans all slots.

use std::collections::{HashMap, VecDeque};

use super::{EvictionPolicy, Use};
use crate::cache::{ExpertKey, SlotId, TokenClock};

/// Later than any position.
const NEVER: u64 = u64::MAX;

/// Belady's optimum over an announced future.
#[derive(Debug)]
pub struct Belady {
    /// Positions at which each expert will be looked up, soonest first.
    future: HashMap<ExpertKey, VecDeque<u64>>,
    /// When the expert in each slot is needed next; `None` for a free slot.
    next: Vec<Option<u64>>,
}

impl Belady {
    /// A policy for slots `0..slots`. `steps` are the coming lookups, in order: the experts of one layer of
    /// one step together.
    pub fn new<'a>(slots: u32, steps: impl IntoIterator<Item = &'a [ExpertKey]>) -> Self {
        let mut future: HashMap<ExpertKey, VecDeque<u64>> = HashMap::new();
        for (position, keys) in (0..).zip(steps) {
            for key in keys {
                future.entry(*key).or_default().push_back(position);
            }
        }
        Self { future, next: vec![None; slots as usize] }
    }

    fn next_use(&self, key: ExpertKey) -> u64 {
        self.future.get(&key).and_then(|uses| uses.front().copied()).unwrap_or(NEVER)
    }
}

#[expect(clippy::cast_precision_loss, reason = "positions of a trace stay far below 2^53")]
fn value_of(next: u64) -> f64 {
    if next == NEVER { f64::NEG_INFINITY } else { -(next as f64) }
}

impl EvictionPolicy for Belady {
    fn name(&self) -> &'static str {
        "belady"
    }

    fn record(&mut self, key: ExpertKey, slot: Option<SlotId>, _usage: Use) {
        if let Some(uses) = self.future.get_mut(&key) {
            uses.pop_front();
        }
        if let Some(slot) = slot {
            self.next[slot.index()] = Some(self.next_use(key));
        }
    }

    fn insert(&mut self, key: ExpertKey, slot: SlotId, _now: TokenClock) {
        self.next[slot.index()] = Some(self.next_use(key));
    }

    fn remove(&mut self, _key: ExpertKey, slot: SlotId) {
        self.next[slot.index()] = None;
    }

    fn victim(&mut self, _now: TokenClock, evictable: &dyn Fn(SlotId) -> bool) -> Option<SlotId> {
        let held = (0..).map(SlotId).zip(&self.next).filter_map(|(slot, next)| next.map(|next| (next, slot)));
        let mut latest: Option<(u64, SlotId)> = None;
        for (next, slot) in held {
            if latest.is_none_or(|(best, _)| next > best) && evictable(slot) {
                latest = Some((next, slot));
            }
        }
        latest.map(|(_, slot)| slot)
    }

    fn value(&self, slot: SlotId, _now: TokenClock) -> f64 {
        value_of(self.next[slot.index()].unwrap_or(NEVER))
    }

    fn prospect(&self, key: ExpertKey, _now: TokenClock, _expected_uses: u32) -> f64 {
        value_of(self.next_use(key))
    }
}

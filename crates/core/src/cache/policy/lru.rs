//! Least recently used. The baseline that every other policy is compared with.
//!
//! Weakness: a forward pass scans the layers in a cycle, so a cache that is a layer short of the working set
//! of one token evicts each expert just before it is needed again and hits exactly 0%.
//!
//! Every operation is O(1), except that a victim search walks past slots that may not be evicted.

use super::slot_list::SlotList;
use super::{EvictionPolicy, Use};
use crate::cache::{ExpertKey, SlotId, TokenClock};

/// Least recently used.
#[derive(Debug)]
pub struct Lru {
    order: SlotList,
    used: Vec<TokenClock>,
}

impl Lru {
    /// A policy for slots `0..slots`.
    pub fn new(slots: u32) -> Self {
        Self { order: SlotList::new(slots), used: vec![TokenClock(0); slots as usize] }
    }
}

impl EvictionPolicy for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }

    fn record(&mut self, _key: ExpertKey, slot: Option<SlotId>, usage: Use) {
        if let Some(slot) = slot {
            self.order.remove(slot);
            self.order.push(slot);
            self.used[slot.index()] = usage.now;
        }
    }

    fn insert(&mut self, _key: ExpertKey, slot: SlotId, now: TokenClock) {
        self.order.push(slot);
        self.used[slot.index()] = now;
    }

    fn remove(&mut self, _key: ExpertKey, slot: SlotId) {
        self.order.remove(slot);
    }

    fn victim(&mut self, _now: TokenClock, evictable: &dyn Fn(SlotId) -> bool) -> Option<SlotId> {
        self.order.iter().find(|slot| evictable(*slot))
    }

    #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^53")]
    fn value(&self, slot: SlotId, _now: TokenClock) -> f64 {
        self.used[slot.index()].0 as f64
    }

    /// Everything absent would be the most recent: LRU keeps no history of it.
    #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^53")]
    fn prospect(&self, _key: ExpertKey, now: TokenClock, _expected_uses: u32) -> f64 {
        now.0 as f64
    }
}

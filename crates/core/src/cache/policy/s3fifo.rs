//! S3-FIFO: three first-in-first-out queues. Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need
//! for cache eviction", SOSP 2023.
//!
//! New experts enter a small queue (10% of the slots). Those used more than once before they reach its end
//! move to the main queue; the others are evicted and remembered as ghosts, and enter the main queue at once
//! if they come back while remembered. The main queue gives each expert as many more rounds as it was used,
//! at most 3.
//!
//! Weakness: it is made for streams in which most objects are used once. Experts are nearly all used again,
//! so the small queue mostly delays, and use counts of 0 to 3 say less about an expert than a decayed
//! frequency does.
//!
//! Every operation is O(1) amortised, except that a victim search walks past slots that may not be evicted.

use std::collections::{HashMap, VecDeque};

use super::slot_list::SlotList;
use super::{EvictionPolicy, Use};
use crate::cache::{ExpertKey, SlotId, TokenClock};

/// Share of the slots that the small queue aims at: a tenth, as in the paper.
const SMALL_DIVISOR: usize = 10;
/// Uses are counted in two bits, as in the paper.
const MAX_USES: u8 = 3;

/// S3-FIFO.
#[derive(Debug)]
pub struct S3Fifo {
    small: SlotList,
    main: SlotList,
    uses: Vec<u8>,
    small_target: usize,
    /// Evicted from the small queue, oldest first, with the serial number that makes an entry the current
    /// one.
    ghosts: VecDeque<(ExpertKey, u64)>,
    ghost_serial: HashMap<ExpertKey, u64>,
    serial: u64,
}

impl S3Fifo {
    /// A policy for slots `0..slots`.
    pub fn new(slots: u32) -> Self {
        Self {
            small: SlotList::new(slots),
            main: SlotList::new(slots),
            uses: vec![0; slots as usize],
            small_target: (slots as usize / SMALL_DIVISOR).max(1),
            ghosts: VecDeque::new(),
            ghost_serial: HashMap::new(),
            serial: 0,
        }
    }

    fn remember(&mut self, key: ExpertKey) {
        self.serial += 1;
        self.ghosts.push_back((key, self.serial));
        self.ghost_serial.insert(key, self.serial);
        let room = self.uses.len().saturating_sub(self.small_target);
        while self.ghosts.len() > room {
            let Some((old, serial)) = self.ghosts.pop_front() else { break };
            if self.ghost_serial.get(&old) == Some(&serial) {
                self.ghost_serial.remove(&old);
            }
        }
    }

    /// The oldest evictable slot of the small queue that was used at most once; those used more go to the
    /// main queue.
    fn victim_of_small(&mut self, evictable: &dyn Fn(SlotId) -> bool) -> Option<SlotId> {
        let mut next = self.small.oldest();
        while let Some(slot) = next {
            next = self.small.newer_than(slot);
            if evictable(slot) {
                if self.uses[slot.index()] <= 1 {
                    return Some(slot);
                }
                self.small.remove(slot);
                self.uses[slot.index()] = 0;
                self.main.push(slot);
            }
        }
        None
    }

    /// The oldest evictable slot of the main queue without uses left; those with uses go another round for
    /// one.
    fn victim_of_main(&mut self, evictable: &dyn Fn(SlotId) -> bool) -> Option<SlotId> {
        for _round in 0..=MAX_USES {
            let mut next = self.main.oldest();
            for _ in 0..self.main.len() {
                // Re-queued slots go behind all that this round still has to see, so there is always a next
                // one.
                let slot = next?;
                next = self.main.newer_than(slot);
                if !evictable(slot) {
                    continue;
                }
                if self.uses[slot.index()] == 0 {
                    return Some(slot);
                }
                self.uses[slot.index()] -= 1;
                self.main.remove(slot);
                self.main.push(slot);
            }
        }
        None
    }
}

impl EvictionPolicy for S3Fifo {
    fn name(&self) -> &'static str {
        "s3fifo"
    }

    fn record(&mut self, _key: ExpertKey, slot: Option<SlotId>, _usage: Use) {
        if let Some(slot) = slot {
            let uses = &mut self.uses[slot.index()];
            *uses = (*uses + 1).min(MAX_USES);
        }
    }

    fn insert(&mut self, key: ExpertKey, slot: SlotId, _now: TokenClock) {
        self.uses[slot.index()] = 0;
        if self.ghost_serial.remove(&key).is_some() {
            self.main.push(slot);
        } else {
            self.small.push(slot);
        }
    }

    fn remove(&mut self, key: ExpertKey, slot: SlotId) {
        if self.small.contains(slot) {
            self.small.remove(slot);
            self.remember(key);
        } else {
            self.main.remove(slot);
        }
    }

    fn victim(&mut self, _now: TokenClock, evictable: &dyn Fn(SlotId) -> bool) -> Option<SlotId> {
        let from_small =
            if self.small.len() >= self.small_target { self.victim_of_small(evictable) } else { None };
        from_small
            .or_else(|| self.victim_of_main(evictable))
            .or_else(|| self.victim_of_small(evictable))
            // The second look may have moved everything to the main queue.
            .or_else(|| self.victim_of_main(evictable))
    }

    /// Uses counted, with one more for having reached the main queue.
    fn value(&self, slot: SlotId, _now: TokenClock) -> f64 {
        f64::from(self.uses[slot.index()]) + f64::from(u8::from(self.main.contains(slot)))
    }

    fn prospect(&self, key: ExpertKey, _now: TokenClock, expected_uses: u32) -> f64 {
        f64::from(expected_uses.min(u32::from(MAX_USES)))
            + f64::from(u8::from(self.ghost_serial.contains_key(&key)))
    }
}

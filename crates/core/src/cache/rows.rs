//! Which rows of a table are in memory, and where.
//!
//! Rows are many and small and a token uses few of them, so eviction is a clock: one bit a slot says whether
//! its row was used since the hand passed. A row is pinned from when it is asked for until it was computed
//! with, and while a read of it is out.
//!
//! Invariants: a row has at most one slot; a slot that is pinned, or being read into, keeps its row; only a
//! completed read makes a row ready.

use std::collections::HashMap;

/// Where a row is, or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowGrant {
    /// It is in this slot, or on its way there.
    Held(u32),
    /// The caller has to read it into this slot.
    Read(u32),
    /// Every slot is pinned or being read into.
    Full,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    Loading,
    Ready,
    /// The read failed; whoever has it pinned finds out.
    Failed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    row: u32,
    state: State,
    pins: u32,
    used: bool,
}

/// The rows of one table that are in memory.
#[derive(Debug)]
pub struct RowCache {
    slots: Vec<Slot>,
    by_row: HashMap<u32, u32>,
    hand: usize,
}

impl RowCache {
    /// An empty cache of so many slots.
    #[must_use]
    pub fn new(slots: u32) -> Self {
        Self { slots: vec![Slot::default(); slots as usize], by_row: HashMap::new(), hand: 0 }
    }

    /// Slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no slot at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Pins that nobody has taken back, of all rows.
    #[must_use]
    pub fn pins(&self) -> usize {
        self.slots.iter().map(|slot| slot.pins as usize).sum()
    }

    /// Pins a row, in a slot of its own where it has none.
    pub fn pin(&mut self, row: u32) -> RowGrant {
        if let Some(&slot) = self.by_row.get(&row) {
            let found = &mut self.slots[slot as usize];
            // A failed read may succeed the next time, but not while somebody has yet to hear of it.
            if found.state != State::Failed || found.pins > 0 {
                found.pins += 1;
                found.used = true;
                return RowGrant::Held(slot);
            }
            return self.grant(slot as usize, row);
        }
        match self.victim() {
            Some(at) => self.grant(at, row),
            None => RowGrant::Full,
        }
    }

    fn grant(&mut self, at: usize, row: u32) -> RowGrant {
        let slot = &mut self.slots[at];
        if slot.state != State::Empty {
            self.by_row.remove(&slot.row);
        }
        // Not used yet but for this once: the hand takes it before rows that were used again.
        *slot = Slot { row, state: State::Loading, pins: 1, used: false };
        self.by_row.insert(row, at as u32);
        RowGrant::Read(at as u32)
    }

    /// A slot that may be given to another row; the hand stops behind it.
    fn victim(&mut self) -> Option<usize> {
        for _ in 0..2 * self.slots.len() {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len();
            let slot = &mut self.slots[at];
            if slot.pins > 0 || slot.state == State::Loading {
                continue;
            }
            if slot.state != State::Ready || !std::mem::take(&mut slot.used) {
                return Some(at);
            }
        }
        None
    }

    /// Takes a pin back.
    pub fn unpin(&mut self, slot: u32) {
        let slot = &mut self.slots[slot as usize];
        slot.pins = slot.pins.saturating_sub(1);
    }

    /// The read into a slot ended.
    pub fn complete(&mut self, slot: u32, ok: bool) {
        self.slots[slot as usize].state = if ok { State::Ready } else { State::Failed };
    }

    /// Whether the row in a slot is there.
    #[must_use]
    pub fn is_ready(&self, slot: u32) -> bool {
        self.slots[slot as usize].state == State::Ready
    }

    /// Whether the read into a slot failed.
    #[must_use]
    pub fn has_failed(&self, slot: u32) -> bool {
        self.slots[slot as usize].state == State::Failed
    }

    /// Nothing is being computed with any more, and nobody waits for anything.
    pub fn unpin_all(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.pins = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Pins and reads a row, and takes the pin back; whether it had to be read.
    fn touch(cache: &mut RowCache, row: u32) -> bool {
        match cache.pin(row) {
            RowGrant::Held(slot) => {
                cache.unpin(slot);
                false
            }
            RowGrant::Read(slot) => {
                cache.complete(slot, true);
                cache.unpin(slot);
                true
            }
            RowGrant::Full => panic!("nothing is pinned"),
        }
    }

    #[test]
    fn a_row_that_is_used_again_outlives_rows_that_are_not() {
        let mut cache = RowCache::new(4);
        assert!(touch(&mut cache, 7) && !touch(&mut cache, 7));
        for row in 100..200 {
            assert!(touch(&mut cache, row));
            assert!(!touch(&mut cache, 7), "evicted by {row}");
        }
    }

    #[test]
    fn pinned_and_loading_rows_stay() {
        let mut cache = RowCache::new(2);
        let RowGrant::Read(first) = cache.pin(1) else { panic!() };
        let RowGrant::Read(second) = cache.pin(2) else { panic!() };
        assert_eq!((cache.pin(3), cache.pin(1)), (RowGrant::Full, RowGrant::Held(first)));
        // Whoever wanted them has gone, but the kernel may still write.
        cache.unpin_all();
        assert_eq!(cache.pin(3), RowGrant::Full);
        cache.complete(second, true);
        assert_eq!(cache.pin(3), RowGrant::Read(second));
        assert!(!cache.is_ready(first) && !cache.is_ready(second));
    }

    #[test]
    fn a_failed_row_is_read_again_by_the_next_who_wants_it() {
        let mut cache = RowCache::new(2);
        let RowGrant::Read(slot) = cache.pin(1) else { panic!() };
        cache.complete(slot, false);
        assert!(cache.has_failed(slot));
        assert_eq!(cache.pin(1), RowGrant::Held(slot), "somebody has yet to hear of it");
        cache.unpin_all();
        assert_eq!(cache.pin(1), RowGrant::Read(slot));
        cache.complete(slot, true);
        assert!(cache.is_ready(slot));
    }

    #[test]
    fn no_row_is_in_two_slots() {
        let mut cache = RowCache::new(16);
        let mut random = 1_u32;
        for _ in 0..10_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            touch(&mut cache, random >> 27);
            let ready = cache.slots.iter().filter(|slot| slot.state == State::Ready);
            let rows: Vec<u32> = ready.map(|slot| slot.row).collect();
            assert_eq!(rows.iter().collect::<HashSet<_>>().len(), rows.len());
            assert!(rows.iter().all(|row| cache.slots[cache.by_row[row] as usize].row == *row));
            assert_eq!((cache.by_row.len(), cache.pins()), (rows.len(), 0));
        }
    }
}

//! The slots of one size class: which expert is in which, in what state, and who holds on to it.
//!
//! Invariants (checked by `debug_check`):
//! * an expert is in at most one slot, and a slot holds at most one expert;
//! * only a completed read makes a slot Resident;
//! * spares are Resident or Loading.

use std::collections::{BTreeMap, HashMap};

use super::{ExpertKey, SlotId, TokenClock};

/// Largest table whose every change is checked in debug builds.
const DEBUG_CHECK_SLOTS: usize = 256;

/// Of a table's slots one in so many, and no more than so many, are spares that stay: the copy that made them
/// spare may still be under way, and whoever took their slots would wait for it.
const STAYING_SPARES: (usize, usize) = (16, 32);

/// Where an expert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// In no slot.
    Absent,
    /// A read into its slot was asked for and has not completed.
    Loading,
    /// Its slot holds all of its bytes.
    Resident,
    /// Its read failed, and someone still pins the slot.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Loading(ExpertKey),
    Resident(ExpertKey),
    Failed(ExpertKey),
    /// Its expert has been evicted, and its bytes are still being copied from it.
    Leaving,
}

impl State {
    pub const fn key(self) -> Option<ExpertKey> {
        match self {
            Self::Free | Self::Leaving => None,
            Self::Loading(key) | Self::Resident(key) | Self::Failed(key) => Some(key),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub state: State,
    pins: u32,
    /// The last lookup that was granted this slot, since its expert is here.
    pub used: Option<TokenClock>,
    /// The last lookup by a decode step, likewise.
    pub decoded: Option<TokenClock>,
    /// When a prefetch put its expert here, until a lookup uses it.
    pub prefetched: Option<TokenClock>,
    /// Its number among the spares.
    spare: Option<u64>,
}

impl Slot {
    const FREE: Self =
        Self { state: State::Free, pins: 0, used: None, decoded: None, prefetched: None, spare: None };

    pub fn evictable(&self) -> bool {
        self.pins == 0 && matches!(self.state, State::Resident(_))
    }
}

/// The slots of an [`super::ExpertCache`]. See the file header for what always holds.
pub struct SlotTable {
    slots: Vec<Slot>,
    free: Vec<SlotId>,
    /// Slots from here on were never written to, and the first time costs more than a read.
    fresh_from: usize,
    of_key: HashMap<ExpertKey, SlotId>,
    /// Slots whose experts somebody else has too, by age.
    spares: BTreeMap<u64, SlotId>,
    next_spare: u64,
    pinned: usize,
    loading: usize,
    resident: usize,
    leaving: usize,
}

impl SlotTable {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            slots: vec![Slot::FREE; slots as usize],
            free: (0..slots).rev().map(SlotId).collect(),
            fresh_from: usize::MAX,
            of_key: HashMap::with_capacity(slots as usize),
            spares: BTreeMap::new(),
            next_spare: 0,
            pinned: 0,
            loading: 0,
            resident: 0,
            leaving: 0,
        }
    }

    pub(super) fn slot(&self, slot: SlotId) -> &Slot {
        &self.slots[slot.index()]
    }

    pub(super) fn slot_mut(&mut self, slot: SlotId) -> &mut Slot {
        &mut self.slots[slot.index()]
    }

    /// The expert that a slot holds or is loading.
    pub fn key_of(&self, slot: SlotId) -> Option<ExpertKey> {
        self.slots.get(slot.index())?.state.key()
    }

    /// The last lookup that was granted a slot, since its expert is there.
    pub fn used_at(&self, slot: SlotId) -> Option<TokenClock> {
        self.slots.get(slot.index())?.used
    }

    /// Whether the expert of a slot may go for one that nobody waits for: no lookup and no prefetch of this
    /// token touched it.
    pub(super) fn is_idle(&self, slot: SlotId, now: TokenClock) -> bool {
        let cell = self.slot(slot);
        cell.evictable() && cell.used != Some(now) && cell.prefetched != Some(now)
    }

    /// The slot of an expert, and the state it is in.
    pub(super) fn find(&self, key: ExpertKey) -> Option<(SlotId, State)> {
        let slot = *self.of_key.get(&key)?;
        Some((slot, self.slot(slot).state))
    }

    pub(super) fn residency(&self, key: ExpertKey) -> Residency {
        match self.find(key).map(|(_, state)| state) {
            Some(State::Loading(_)) => Residency::Loading,
            Some(State::Resident(_)) => Residency::Resident,
            Some(State::Failed(_)) => Residency::Failed,
            Some(State::Free | State::Leaving) | None => Residency::Absent,
        }
    }

    /// All Resident experts, in slot order.
    pub fn residents(&self) -> impl Iterator<Item = (ExpertKey, SlotId)> + '_ {
        let resident = |(index, cell): (u32, &Slot)| match cell.state {
            State::Resident(key) => Some((key, SlotId(index))),
            _ => None,
        };
        (0..).zip(&self.slots).filter_map(resident)
    }

    /// From now on slots from here on are fresh; `None`: none is.
    pub(super) fn set_fresh_from(&mut self, slot: Option<SlotId>) {
        self.fresh_from = slot.map_or(usize::MAX, SlotId::index);
    }

    /// A free slot that is not fresh, and is free no longer: [`Self::start_loading`] comes next.
    pub(super) fn take_free(&mut self) -> Option<SlotId> {
        self.free.pop_if(|slot| slot.index() < self.fresh_from)
    }

    /// The same, fresh or not, where there has to be one, or nobody is in any slot.
    pub(super) fn take_fresh(&mut self, has_to: bool) -> Option<SlotId> {
        if has_to || self.resident == 0 { self.free.pop() } else { None }
    }

    /// Slots that are free, or will be when they have been copied from.
    pub(super) fn coming_free(&self) -> usize {
        self.free.len() + self.leaving
    }

    /// An evicted slot is copied from before it is given to anybody.
    pub(super) fn leave(&mut self, slot: SlotId) {
        self.slot_mut(slot).state = State::Leaving;
        self.leaving += 1;
    }

    /// A slot has been copied from.
    pub(super) fn left(&mut self, slot: SlotId) {
        debug_assert_eq!(self.slot(slot).state, State::Leaving);
        *self.slot_mut(slot) = Slot::FREE;
        self.leaving -= 1;
        self.free.push(slot);
    }

    pub(super) fn start_loading(&mut self, key: ExpertKey, slot: SlotId) {
        self.slot_mut(slot).state = State::Loading(key);
        self.of_key.insert(key, slot);
        self.loading += 1;
    }

    /// The read into a Loading slot ended; returns whose it was.
    pub(super) fn complete(&mut self, slot: SlotId, ok: bool) -> Option<ExpertKey> {
        let State::Loading(key) = self.slot(slot).state else {
            debug_assert!(false, "slot {} completed while not loading", slot.0);
            return None;
        };
        self.loading -= 1;
        if ok {
            self.slot_mut(slot).state = State::Resident(key);
            self.resident += 1;
        } else if self.slot(slot).pins > 0 {
            self.set_spare(slot, false);
            self.slot_mut(slot).state = State::Failed(key);
        } else {
            self.release(key, slot);
        }
        Some(key)
    }

    /// Takes the expert out of a Resident slot, which the caller fills at once; returns who it was, and
    /// whether a prefetch had brought it for nothing. `None` where there is none.
    pub(super) fn evict(&mut self, slot: SlotId) -> Option<(ExpertKey, bool)> {
        let cell = *self.slot(slot);
        let State::Resident(key) = cell.state else { return None };
        debug_assert_eq!(cell.pins, 0, "evicting a pinned slot");
        self.set_spare(slot, false);
        *self.slot_mut(slot) = Slot::FREE;
        self.of_key.remove(&key);
        self.resident -= 1;
        Some((key, cell.prefetched.is_some()))
    }

    fn release(&mut self, key: ExpertKey, slot: SlotId) {
        self.set_spare(slot, false);
        *self.slot_mut(slot) = Slot::FREE;
        self.of_key.remove(&key);
        self.free.push(slot);
    }

    pub(super) fn pin(&mut self, slot: SlotId) {
        let cell = self.slot_mut(slot);
        cell.pins += 1;
        self.pinned += usize::from(self.slot(slot).pins == 1);
    }

    /// Gives back one pin. A Failed slot is freed with its last pin.
    pub(super) fn unpin(&mut self, slot: SlotId) {
        let cell = self.slot_mut(slot);
        debug_assert!(cell.pins > 0, "slot {} unpinned more often than pinned", slot.0);
        if cell.pins == 0 {
            return;
        }
        cell.pins -= 1;
        if cell.pins == 0 {
            if let State::Failed(key) = cell.state {
                self.release(key, slot);
            }
            self.pinned -= 1;
        }
    }

    /// Whether somebody else has the expert of a slot too.
    pub(super) fn set_spare(&mut self, slot: SlotId, spare: bool) {
        let known = self.slot(slot).spare;
        match (known, spare) {
            (None, true) => {
                let number = self.next_spare;
                self.next_spare += 1;
                self.spares.insert(number, slot);
                self.slot_mut(slot).spare = Some(number);
            }
            (Some(number), false) => {
                self.spares.remove(&number);
                self.slot_mut(slot).spare = None;
            }
            (Some(_), true) | (None, false) => {}
        }
    }

    /// The oldest spare that may go, but for the youngest ones ([`STAYING_SPARES`]).
    pub(super) fn oldest_spare(&self, may_go: &dyn Fn(SlotId) -> bool) -> Option<SlotId> {
        let (share, most) = STAYING_SPARES;
        let going = self.spares.len().saturating_sub((self.slots.len() / share).min(most));
        self.spares.values().take(going).copied().find(|slot| may_go(*slot))
    }

    /// Whether a slot from `first` on is pinned or Loading.
    pub(super) fn is_in_use_from(&self, first: usize) -> bool {
        let in_use = |cell: &Slot| cell.pins > 0 || matches!(cell.state, State::Loading(_) | State::Leaving);
        self.slots[first..].iter().any(in_use)
    }

    /// Gives up all slots from `keep` on, in which nobody is.
    pub(super) fn truncate(&mut self, keep: usize) {
        self.slots.truncate(keep);
        self.free.retain(|slot| slot.index() < keep);
        self.debug_check();
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Slots with at least one pin.
    pub fn pinned(&self) -> usize {
        self.pinned
    }

    /// Slots with a read under way.
    pub fn loading(&self) -> usize {
        self.loading
    }

    /// Slots whose expert is usable now.
    pub fn resident(&self) -> usize {
        self.resident
    }

    /// Checks the invariants that a single look can see. Costs a pass over the slots, so only small tables in
    /// debug builds.
    pub(super) fn debug_check(&self) {
        if cfg!(debug_assertions) && self.slots.len() <= DEBUG_CHECK_SLOTS {
            let count = |wanted: fn(&Slot) -> bool| self.slots.iter().filter(|cell| wanted(cell)).count();
            assert_eq!(self.pinned, count(|cell| cell.pins > 0));
            assert_eq!(self.loading, count(|cell| matches!(cell.state, State::Loading(_))));
            assert_eq!(self.resident, count(|cell| matches!(cell.state, State::Resident(_))));
            assert_eq!(self.free.len(), count(|cell| cell.state == State::Free));
            assert_eq!(self.leaving, count(|cell| cell.state == State::Leaving));
            assert_eq!(self.of_key.len() + self.free.len() + self.leaving, self.slots.len());
            assert_eq!(self.spares.len(), count(|cell| cell.spare.is_some()));
            for (key, slot) in &self.of_key {
                assert_eq!(self.slot(*slot).state.key(), Some(*key));
            }
        }
    }
}

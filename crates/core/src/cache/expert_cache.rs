//! The residency state machine of one size class.
//!
//! Owns the map from expert to slot, the state and pins of every slot, the free list and the counters. It
//! reads no bytes: it says what to read, and the result of the read is reported back.
//!
//! Invariants (checked by `debug_check` and by `tests/cache_model.rs` against a naive model):
//! * an expert is in at most one slot, and a slot holds at most one expert;
//! * only a completed read makes a slot Resident, and only a Resident slot is granted as a hit;
//! * a pinned or Loading slot is never a victim;
//! * a Failed slot is never a hit; it is freed when its last pin goes, or retried by the next lookup;
//! * the same calls give the same answers.

use std::collections::HashMap;

use super::{Counters, DECODE_TOKENS, EvictionPolicy, ExpertKey, SlotId, TokenClock, Use};

/// Largest cache whose every call is checked in debug builds.
const DEBUG_CHECK_SLOTS: usize = 256;

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

/// One expert that a layer needs in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The expert.
    pub key: ExpertKey,
    /// How many tokens of the step use it (at least 1).
    pub tokens: u32,
}

/// The answer to one [`Demand`]. Every answer with a slot has pinned it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Resident: compute now.
    Hit(SlotId),
    /// The slot is now Loading and the caller must read the expert into it, then call
    /// [`ExpertCache::complete`].
    Load(SlotId),
    /// A read that was asked for earlier is under way: wait for it.
    Joined(SlotId),
    /// No slot: read the expert into a throwaway buffer. Nothing was pinned.
    NoRoom,
}

impl Grant {
    /// The slot that was pinned, if any.
    pub const fn slot(self) -> Option<SlotId> {
        match self {
            Grant::Hit(slot) | Grant::Load(slot) | Grant::Joined(slot) => Some(slot),
            Grant::NoRoom => None,
        }
    }
}

/// Which missing experts get a slot in a decode step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Every one, as long as there is a slot that may be evicted.
    #[default]
    Always,
    /// Those worth more than the victim; the others are `NoRoom`, though a slot could have been found. Reads
    /// as much and keeps better company: it pays while the cache is smaller than one token's working set.
    IfWorth,
}

/// A prefill ubatch, for [`ExpertCache::acquire_batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many tokens it computes.
    pub span_tokens: u32,
    /// Experts that a decode step used at this clock or later keep their slots, whatever the batch needs.
    pub protect_since: Option<TokenClock>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Loading(ExpertKey),
    Resident(ExpertKey),
    Failed(ExpertKey),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: State,
    pins: u32,
    /// The last lookup that was granted this slot, since its expert is here.
    used: Option<TokenClock>,
    /// The last lookup by a decode step, likewise.
    decoded: Option<TokenClock>,
    /// When a prefetch put its expert here, until a lookup uses it.
    prefetched: Option<TokenClock>,
}

impl Slot {
    const FREE: Slot = Slot { state: State::Free, pins: 0, used: None, decoded: None, prefetched: None };

    fn resident(&self) -> Option<ExpertKey> {
        if let State::Resident(key) = self.state { Some(key) } else { None }
    }

    fn evictable(&self) -> bool {
        self.pins == 0 && matches!(self.state, State::Resident(_))
    }
}

/// Which routed experts are in which slots. See the file header for what always holds.
pub struct ExpertCache {
    slots: Vec<Slot>,
    free: Vec<SlotId>,
    of_key: HashMap<ExpertKey, SlotId>,
    policy: Box<dyn EvictionPolicy + Send>,
    admission: Admission,
    counters: Counters,
    pinned: usize,
    loading: usize,
    resident: usize,
}

impl ExpertCache {
    /// An empty cache of `slots` slots, evicting by `policy` (made for the same number of slots).
    pub fn new(slots: u32, policy: Box<dyn EvictionPolicy + Send>) -> Self {
        Self {
            slots: vec![Slot::FREE; slots as usize],
            free: (0..slots).rev().map(SlotId).collect(),
            of_key: HashMap::with_capacity(slots as usize),
            policy,
            admission: Admission::default(),
            counters: Counters::default(),
            pinned: 0,
            loading: 0,
            resident: 0,
        }
    }

    /// The same cache with another admission rule for decode steps.
    #[must_use]
    pub fn with_admission(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// Looks up what one layer needs of `tokens` tokens that are computed together: [`Self::acquire`] for a
    /// decode step, [`Self::acquire_batch`] for a prefill ubatch. The engine and the simulator both ask this
    /// way.
    pub fn acquire_step(&mut self, demands: &[Demand], now: TokenClock, tokens: u32) -> Vec<Grant> {
        if tokens <= DECODE_TOKENS {
            self.acquire(demands, now)
        } else {
            self.acquire_batch(demands, now, Batch { span_tokens: tokens, protect_since: None })
        }
    }

    /// Looks up what one layer needs in one decode step, and pins it. The answers are in the order of
    /// `demands`, whose keys must be unique. Hits are pinned before any victim is sought, so the step never
    /// evicts what it is about to use.
    pub fn acquire(&mut self, demands: &[Demand], now: TokenClock) -> Vec<Grant> {
        let mut grants: Vec<Grant> = demands.iter().map(|demand| self.find(*demand, now, 1)).collect();
        for (demand, grant) in demands.iter().zip(&mut grants) {
            if *grant == Grant::NoRoom {
                *grant = self.place(demand.key, now, self.admission, None);
            }
            if let Some(slot) = grant.slot() {
                self.slots[slot.index()].decoded = Some(now);
            }
        }
        self.debug_check();
        grants
    }

    /// Looks up what one layer needs in one prefill ubatch, and pins what is here. A missing expert gets a
    /// slot only if it is worth more than the victim (hottest first), so that the hottest experts are left
    /// resident for decode and the rest of the weights streams past. Answers and uniqueness as in
    /// [`Self::acquire`]; `now` is the clock after the batch.
    pub fn acquire_batch(&mut self, demands: &[Demand], now: TokenClock, batch: Batch) -> Vec<Grant> {
        let span = batch.span_tokens.max(1);
        let mut grants: Vec<Grant> = demands.iter().map(|demand| self.find(*demand, now, span)).collect();
        let mut missing: Vec<(f64, usize)> = (0..demands.len())
            .filter(|index| grants[*index] == Grant::NoRoom)
            .map(|index| (self.policy.prospect(demands[index].key, now, 0), index))
            .collect();
        missing.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, index) in missing {
            grants[index] = self.place(demands[index].key, now, Admission::IfWorth, batch.protect_since);
        }
        self.debug_check();
        grants
    }

    /// Records the lookup, and pins the expert's slot where it has one. `NoRoom` is provisional: not placed
    /// yet.
    fn find(&mut self, demand: Demand, now: TokenClock, span_tokens: u32) -> Grant {
        let usage = Use { now, weight: demand.tokens.max(1), span_tokens };
        let slot = self.of_key.get(&demand.key).copied();
        let grant = match slot.map(|slot| (slot, self.slots[slot.index()].state)) {
            Some((slot, State::Resident(_))) => Grant::Hit(slot),
            Some((slot, State::Loading(_))) => Grant::Joined(slot),
            _ => Grant::NoRoom,
        };
        self.policy.record(demand.key, grant.slot(), usage);
        if let Some(slot) = grant.slot() {
            self.pin(slot);
            let cell = &mut self.slots[slot.index()];
            cell.used = Some(now);
            if cell.prefetched.take().is_some() {
                self.counters.prefetches_used += 1;
            }
        }
        match grant {
            Grant::Hit(_) => self.counters.hits += 1,
            Grant::Joined(_) => self.counters.joined += 1,
            Grant::Load(_) | Grant::NoRoom => {}
        }
        grant
    }

    /// Finds a slot for a missing expert: its own failed one, a free one, or a victim's.
    fn place(
        &mut self,
        key: ExpertKey,
        now: TokenClock,
        admission: Admission,
        protect_since: Option<TokenClock>,
    ) -> Grant {
        let slot = match self.of_key.get(&key).copied() {
            Some(slot) => match self.slots[slot.index()].state {
                State::Failed(_) => Some(slot),
                // The same key twice in one call: a caller's error, answered like a second lookup.
                _ => {
                    debug_assert!(false, "{key} demanded twice in one step");
                    self.pin(slot);
                    self.counters.joined += 1;
                    return Grant::Joined(slot);
                }
            },
            None => self.free.pop().or_else(|| self.evict_for(key, now, admission, protect_since)),
        };
        let Some(slot) = slot else {
            self.counters.streamed += 1;
            return Grant::NoRoom;
        };
        self.start_loading(key, slot, now);
        self.slots[slot.index()].used = Some(now);
        self.pin(slot);
        self.counters.loads += 1;
        Grant::Load(slot)
    }

    /// Frees the slot of the policy's victim; the caller fills it at once. Experts prefetched in this token
    /// and not used yet go last: they are about to be needed.
    fn evict_for(
        &mut self,
        key: ExpertKey,
        now: TokenClock,
        admission: Admission,
        protect_since: Option<TokenClock>,
    ) -> Option<SlotId> {
        let slots = &self.slots;
        let evictable = |slot: SlotId| {
            let cell = &slots[slot.index()];
            cell.evictable() && protect_since.is_none_or(|since| cell.decoded < Some(since))
        };
        let settled = |slot: SlotId| slots[slot.index()].prefetched != Some(now) && evictable(slot);
        let victim = self.policy.victim(now, &settled).or_else(|| self.policy.victim(now, &evictable))?;
        if admission == Admission::IfWorth
            && self.policy.value(victim, now) >= self.policy.prospect(key, now, 0)
        {
            return None;
        }
        self.drop_resident(victim);
        Some(victim)
    }

    fn drop_resident(&mut self, slot: SlotId) {
        let cell = &mut self.slots[slot.index()];
        if let State::Resident(key) = cell.state {
            debug_assert_eq!(cell.pins, 0, "evicting a pinned slot");
            self.counters.prefetches_wasted += u64::from(cell.prefetched.is_some());
            *cell = Slot::FREE;
            self.of_key.remove(&key);
            self.policy.remove(key, slot);
            self.resident -= 1;
            self.counters.evictions += 1;
        }
    }

    fn start_loading(&mut self, key: ExpertKey, slot: SlotId, now: TokenClock) {
        self.slots[slot.index()].state = State::Loading(key);
        self.of_key.insert(key, slot);
        self.policy.insert(key, slot, now);
        self.loading += 1;
    }

    fn pin(&mut self, slot: SlotId) {
        let cell = &mut self.slots[slot.index()];
        if cell.pins == 0 {
            self.pinned += 1;
        }
        cell.pins += 1;
    }

    /// Gives back one pin. A Failed slot is freed with its last pin.
    pub fn unpin(&mut self, slot: SlotId) {
        let cell = &mut self.slots[slot.index()];
        debug_assert!(cell.pins > 0, "slot {} unpinned more often than pinned", slot.0);
        if cell.pins == 0 {
            return;
        }
        cell.pins -= 1;
        if cell.pins == 0 {
            self.pinned -= 1;
            if let State::Failed(key) = cell.state {
                *cell = Slot::FREE;
                self.of_key.remove(&key);
                self.free.push(slot);
            }
        }
    }

    /// The read into a Loading slot ended: all bytes are there (`ok`), or they are not and never will be.
    pub fn complete(&mut self, slot: SlotId, ok: bool) {
        let cell = &mut self.slots[slot.index()];
        let State::Loading(key) = cell.state else {
            debug_assert!(false, "slot {} completed while not loading", slot.0);
            return;
        };
        self.loading -= 1;
        if ok {
            cell.state = State::Resident(key);
            self.resident += 1;
        } else {
            self.counters.failures += 1;
            self.policy.remove(key, slot);
            if cell.pins > 0 {
                cell.state = State::Failed(key);
            } else {
                self.release(key, slot);
            }
        }
    }

    fn release(&mut self, key: ExpertKey, slot: SlotId) {
        self.slots[slot.index()] = Slot::FREE;
        self.of_key.remove(&key);
        self.free.push(slot);
    }

    /// Asks for a slot for a predicted expert. `Some`: the slot is now Loading, not pinned, and the caller
    /// must read into it and call [`Self::complete`]. It takes a free slot, or that of a victim which no
    /// lookup and no prefetch of this token touched and which the policy values less than `key` used now.
    /// `None` otherwise, and where the expert already has a slot.
    pub fn prefetch(&mut self, key: ExpertKey, now: TokenClock) -> Option<SlotId> {
        if self.of_key.contains_key(&key) {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slots = &self.slots;
                let idle = |slot: SlotId| {
                    let cell = &slots[slot.index()];
                    cell.evictable() && cell.used != Some(now) && cell.prefetched != Some(now)
                };
                let victim = self.policy.victim(now, &idle)?;
                if self.policy.value(victim, now) >= self.policy.prospect(key, now, 1) {
                    return None;
                }
                self.drop_resident(victim);
                victim
            }
        };
        self.start_loading(key, slot, now);
        self.slots[slot.index()].prefetched = Some(now);
        self.counters.prefetches += 1;
        self.debug_check();
        Some(slot)
    }

    /// Gives up all slots but the first `keep`, with the experts in them. Refused (`false`), and nothing
    /// changed, while one of them is pinned or Loading.
    pub fn shrink(&mut self, keep: u32) -> bool {
        let keep = (keep as usize).min(self.slots.len());
        let in_use = |cell: &Slot| cell.pins > 0 || matches!(cell.state, State::Loading(_));
        if self.slots[keep..].iter().any(in_use) {
            return false;
        }
        for index in keep..self.slots.len() {
            self.drop_resident(SlotId(u32::try_from(index).unwrap_or(u32::MAX)));
        }
        self.slots.truncate(keep);
        self.free.retain(|slot| slot.index() < keep);
        self.debug_check();
        true
    }

    /// Where `key` stands. Not a lookup: nothing is counted or recorded.
    pub fn peek(&self, key: ExpertKey) -> Residency {
        match self.of_key.get(&key).map(|slot| self.slots[slot.index()].state) {
            Some(State::Loading(_)) => Residency::Loading,
            Some(State::Resident(_)) => Residency::Resident,
            Some(State::Failed(_)) => Residency::Failed,
            Some(State::Free) | None => Residency::Absent,
        }
    }

    /// The slot that holds all of `key`. Not a lookup.
    pub fn slot_of(&self, key: ExpertKey) -> Option<SlotId> {
        let is_whole = |slot: &SlotId| matches!(self.slots[slot.index()].state, State::Resident(_));
        self.of_key.get(&key).copied().filter(is_whole)
    }

    /// The expert that `slot` holds or is loading.
    pub fn key_of(&self, slot: SlotId) -> Option<ExpertKey> {
        match self.slots.get(slot.index())?.state {
            State::Free => None,
            State::Loading(key) | State::Resident(key) | State::Failed(key) => Some(key),
        }
    }

    /// The last lookup that was granted a slot, since its expert is there.
    pub fn used_at(&self, slot: SlotId) -> Option<TokenClock> {
        self.slots.get(slot.index())?.used
    }

    /// All Resident experts, in slot order.
    pub fn keys_resident(&self) -> impl Iterator<Item = (ExpertKey, SlotId)> + '_ {
        (0..).zip(&self.slots).filter_map(|(index, cell)| Some((cell.resident()?, SlotId(index))))
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
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

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Checks the invariants that a single look can see. Costs a pass over the slots, so only small caches in
    /// debug builds.
    fn debug_check(&self) {
        if cfg!(debug_assertions) && self.slots.len() <= DEBUG_CHECK_SLOTS {
            let count = |wanted: fn(&Slot) -> bool| self.slots.iter().filter(|cell| wanted(cell)).count();
            assert_eq!(self.pinned, count(|cell| cell.pins > 0));
            assert_eq!(self.loading, count(|cell| matches!(cell.state, State::Loading(_))));
            assert_eq!(self.resident, count(|cell| matches!(cell.state, State::Resident(_))));
            assert_eq!(self.free.len(), count(|cell| cell.state == State::Free));
            assert_eq!(self.of_key.len() + self.free.len(), self.slots.len());
            for (key, slot) in &self.of_key {
                assert_eq!(self.key_of(*slot), Some(*key));
            }
        }
    }
}

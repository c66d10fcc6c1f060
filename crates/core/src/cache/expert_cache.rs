//! Residency of the experts of one size class: lookups, and who goes for whom.
//!
//! Owns the table of slots, the policy and the counters. It reads no bytes: it says what to read, and the
//! result of the read is reported back.
//!
//! Two of them can be two tiers, each expert in one or the other: the upper one notes whom it evicts
//! ([`ExpertCache::take_evictions`]), the lower one takes those in ([`ExpertCache::adopt`]), lets go first
//! what the upper one has too ([`ExpertCache::set_spare`]), and hears of all uses
//! ([`ExpertCache::note_uses`]).
//!
//! Invariants (those of `slot_table`, and these; checked by `tests/cache_model.rs` against a naive model):
//! * only a Resident slot is granted as a hit;
//! * a pinned or Loading slot is never a victim;
//! * a Failed slot is never a hit; it is freed when its last pin goes, or retried by the next lookup;
//! * the same calls give the same answers.

use super::slot_table::{SlotTable, State};
use super::{Counters, DECODE_TOKENS, EvictionPolicy, ExpertKey, Residency, SlotId, TokenClock, Use};

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

/// Which routed experts are in which slots. See the file header for what always holds.
pub struct ExpertCache {
    table: SlotTable,
    policy: Box<dyn EvictionPolicy + Send>,
    admission: Admission,
    counters: Counters,
    /// Whom it evicted, and from where, since somebody asked; `None` where nobody does.
    evicted: Option<Vec<(ExpertKey, SlotId)>>,
}

impl ExpertCache {
    /// An empty cache of `slots` slots, evicting by `policy` (made for the same number of slots).
    pub fn new(slots: u32, policy: Box<dyn EvictionPolicy + Send>) -> Self {
        let (admission, counters) = (Admission::default(), Counters::default());
        Self { table: SlotTable::new(slots), policy, admission, counters, evicted: None }
    }

    /// The same cache with another admission rule for decode steps.
    #[must_use]
    pub fn with_admission(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// Slots from here on are costly to write to: they are taken only where nobody can be evicted.
    pub fn set_fresh_from(&mut self, slot: Option<SlotId>) {
        self.table.set_fresh_from(slot);
    }

    /// From now on notes whom it evicts. Somebody has to ask: [`Self::take_evictions`].
    pub fn note_evictions(&mut self) {
        self.evicted.get_or_insert_default();
    }

    /// Whom it evicted, and from which slot, since the last call. The slot is free or somebody else's, and
    /// keeps the bytes until those are overwritten.
    pub fn take_evictions(&mut self) -> Vec<(ExpertKey, SlotId)> {
        self.evicted.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Evicts until `free` slots are free or about to be, as far as nothing of this token is in the way;
    /// returns who went, and from where. The slots keep the bytes, and are given to nobody, until
    /// [`Self::free_evicted`].
    pub fn evict_ahead(&mut self, free: usize, now: TokenClock) -> Vec<(ExpertKey, SlotId)> {
        let mut gone = Vec::new();
        while self.table.coming_free() < free {
            let table = &self.table;
            let victim = self.policy.victim(now, &|slot| table.is_idle(slot, now));
            let Some((victim, key)) = victim.and_then(|slot| Some((slot, self.remove(slot)?))) else { break };
            self.table.leave(victim);
            gone.push((key, victim));
        }
        self.table.debug_check();
        gone
    }

    /// A slot of [`Self::evict_ahead`] is free.
    pub fn free_evicted(&mut self, slot: SlotId) {
        self.table.left(slot);
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
                self.table.slot_mut(slot).decoded = Some(now);
            }
        }
        self.table.debug_check();
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
        self.table.debug_check();
        grants
    }

    /// Looks up what one layer needs in one prefill ubatch of `span_tokens` tokens, pins what is whole, and
    /// gives no slot to the rest: that comes from elsewhere.
    pub fn acquire_present(
        &mut self,
        demands: &[Demand],
        now: TokenClock,
        span_tokens: u32,
    ) -> Vec<Option<SlotId>> {
        let look_up = |demand: &Demand| match self.find(*demand, now, span_tokens.max(1)) {
            Grant::Hit(slot) => Some(slot),
            Grant::Joined(slot) => {
                self.table.unpin(slot);
                None
            }
            Grant::Load(_) | Grant::NoRoom => None,
        };
        demands.iter().map(look_up).collect()
    }

    /// Lookups that another tier answered: who is kept here follows from all uses.
    pub fn note_uses(&mut self, demands: &[Demand], now: TokenClock, span_tokens: u32) {
        for demand in demands {
            let usage = Use { now, weight: demand.tokens.max(1), span_tokens: span_tokens.max(1) };
            let slot = self.table.find(demand.key).map(|(slot, _)| slot);
            self.policy.record(demand.key, slot, usage);
        }
    }

    /// Records the lookup, and pins the expert's slot where it has one. `NoRoom` is provisional: not placed
    /// yet.
    fn find(&mut self, demand: Demand, now: TokenClock, span_tokens: u32) -> Grant {
        let usage = Use { now, weight: demand.tokens.max(1), span_tokens };
        let grant = match self.table.find(demand.key) {
            Some((slot, State::Resident(_))) => Grant::Hit(slot),
            Some((slot, State::Loading(_))) => Grant::Joined(slot),
            _ => Grant::NoRoom,
        };
        self.policy.record(demand.key, grant.slot(), usage);
        if let Some(slot) = grant.slot() {
            self.table.pin(slot);
            self.table.set_spare(slot, false);
            let cell = self.table.slot_mut(slot);
            cell.used = Some(now);
            if cell.prefetched.take().is_some() {
                self.counters.prefetches_used += 1;
            }
        }
        self.counters.hits += u64::from(matches!(grant, Grant::Hit(_)));
        self.counters.joined += u64::from(matches!(grant, Grant::Joined(_)));
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
        let slot = match self.table.find(key) {
            Some((slot, State::Failed(_))) => Some(slot),
            // The same key twice in one call: a caller's error, answered like a second lookup.
            Some((slot, _)) => {
                debug_assert!(false, "{key} demanded twice in one step");
                self.table.pin(slot);
                self.counters.joined += 1;
                return Grant::Joined(slot);
            }
            None => (self.table.take_free())
                .or_else(|| self.evict_for(key, now, admission, protect_since))
                .or_else(|| self.table.take_fresh(admission == Admission::Always)),
        };
        let Some(slot) = slot else {
            self.counters.streamed += 1;
            return Grant::NoRoom;
        };
        self.start_loading(key, slot, now);
        self.table.slot_mut(slot).used = Some(now);
        self.table.pin(slot);
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
        let table = &self.table;
        let evictable = |slot: SlotId| {
            let cell = table.slot(slot);
            cell.evictable() && protect_since.is_none_or(|since| cell.decoded < Some(since))
        };
        let settled = |slot: SlotId| table.slot(slot).prefetched != Some(now) && evictable(slot);
        let spare = table.oldest_spare(&settled);
        let victim = spare
            .or_else(|| self.policy.victim(now, &settled))
            .or_else(|| self.policy.victim(now, &evictable))?;
        if spare.is_none()
            && admission == Admission::IfWorth
            && self.policy.value(victim, now) >= self.policy.prospect(key, now, 0)
        {
            return None;
        }
        self.drop_resident(victim);
        Some(victim)
    }

    fn drop_resident(&mut self, slot: SlotId) {
        if let (Some(key), Some(evicted)) = (self.remove(slot), &mut self.evicted) {
            evicted.push((key, slot));
        }
    }

    /// Takes the expert out of a Resident slot; returns who it was.
    fn remove(&mut self, slot: SlotId) -> Option<ExpertKey> {
        let (key, unused) = self.table.evict(slot)?;
        self.counters.prefetches_wasted += u64::from(unused);
        self.counters.evictions += 1;
        self.policy.remove(key, slot);
        Some(key)
    }

    fn start_loading(&mut self, key: ExpertKey, slot: SlotId, now: TokenClock) {
        self.table.start_loading(key, slot);
        self.policy.insert(key, slot, now);
    }

    /// Holds on to whoever is in a slot, as a lookup does, without counting as one.
    pub fn pin(&mut self, slot: SlotId) {
        self.table.pin(slot);
    }

    /// Gives back one pin. A Failed slot is freed with its last pin.
    pub fn unpin(&mut self, slot: SlotId) {
        self.table.unpin(slot);
    }

    /// The read into a Loading slot ended: all bytes are there (`ok`), or they are not and never will be.
    pub fn complete(&mut self, slot: SlotId, ok: bool) {
        let Some(key) = self.table.complete(slot, ok) else { return };
        if !ok {
            self.counters.failures += 1;
            self.policy.remove(key, slot);
        }
    }

    /// Asks for a slot for a predicted expert. `Some`: the slot is now Loading, not pinned, and the caller
    /// must read into it and call [`Self::complete`]. It takes a free slot, or that of a victim which no
    /// lookup and no prefetch of this token touched and which the policy values less than `key` used now.
    /// `None` otherwise, and where the expert already has a slot.
    pub fn prefetch(&mut self, key: ExpertKey, now: TokenClock) -> Option<SlotId> {
        let slot = self.make_room(key, now, 1, SlotTable::is_idle)?;
        self.table.slot_mut(slot).prefetched = Some(now);
        self.counters.prefetches += 1;
        self.table.debug_check();
        Some(slot)
    }

    /// The tier above gives up an expert: asks for a slot to keep it in. `Some`: as with
    /// [`Self::prefetch`], and the caller copies it there. `None` where it is here anyway, and where the
    /// policy values nobody here less.
    pub fn adopt(&mut self, key: ExpertKey, now: TokenClock) -> Option<SlotId> {
        if let Some((slot, _)) = self.table.find(key) {
            self.table.set_spare(slot, false);
            return None;
        }
        self.make_room(key, now, 0, |table, slot, _| table.slot(slot).evictable())
    }

    /// A slot for an absent expert that nobody waits for, Loading; `expected_uses` is how often it is about
    /// to be used.
    fn make_room(
        &mut self,
        key: ExpertKey,
        now: TokenClock,
        expected_uses: u32,
        may_go: fn(&SlotTable, SlotId, TokenClock) -> bool,
    ) -> Option<SlotId> {
        if self.table.find(key).is_some() {
            return None;
        }
        let slot = match self.table.take_free() {
            Some(slot) => slot,
            None => {
                let table = &self.table;
                let may_go = |slot: SlotId| may_go(table, slot, now);
                let spare = table.oldest_spare(&may_go);
                let victim = spare.or_else(|| self.policy.victim(now, &may_go))?;
                let worth = || self.policy.prospect(key, now, expected_uses);
                if spare.is_none() && self.policy.value(victim, now) >= worth() {
                    return None;
                }
                self.drop_resident(victim);
                victim
            }
        };
        self.start_loading(key, slot, now);
        Some(slot)
    }

    /// The tier above has the expert of a slot too: it goes before all that nobody else has, unless a lookup
    /// or [`Self::adopt`] comes for it first.
    pub fn set_spare(&mut self, slot: SlotId) {
        self.table.set_spare(slot, true);
    }

    /// Gives up all slots but the first `keep`, with the experts in them. Refused (`false`), and nothing
    /// changed, while one of them is pinned or Loading.
    pub fn shrink(&mut self, keep: u32) -> bool {
        let keep = (keep as usize).min(self.capacity());
        if self.table.is_in_use_from(keep) {
            return false;
        }
        for index in keep..self.capacity() {
            self.drop_resident(SlotId(u32::try_from(index).unwrap_or(u32::MAX)));
        }
        self.table.truncate(keep);
        true
    }

    /// Where `key` stands. Not a lookup: nothing is counted or recorded.
    pub fn peek(&self, key: ExpertKey) -> Residency {
        self.table.residency(key)
    }

    /// The slot that holds all of `key`. Not a lookup.
    pub fn slot_of(&self, key: ExpertKey) -> Option<SlotId> {
        self.table.find(key).filter(|(_, state)| matches!(state, State::Resident(_))).map(|(slot, _)| slot)
    }

    /// Who is where.
    pub fn table(&self) -> &SlotTable {
        &self.table
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.table.len()
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

//! The expert cache against a naive model, by random sequences of calls.
//!
//! The model knows everything but whom a policy evicts; it learns that by looking which expert vanished, and
//! checks that the cache was allowed to evict it. A second cache is driven by the same calls and must answer
//! the same.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::HashMap;

use hypura_core::cache::{
    Admission, Batch, Counters, Demand, ExpertCache, ExpertKey, Grant, PolicyKind, Residency, SlotId,
    TokenClock,
};
use proptest::prelude::*;

const LAYERS: u32 = 3;
const EXPERTS: u32 = 6;

#[derive(Clone, Debug)]
enum Call {
    Acquire {
        layer: u32,
        experts: Vec<u32>,
    },
    AcquireBatch {
        layer: u32,
        experts: Vec<u32>,
        span: u32,
        protect: Option<u64>,
    },
    Prefetch {
        layer: u32,
        expert: u32,
    },
    /// The n-th Loading slot (by number, wrapping).
    Complete {
        nth: usize,
        ok: bool,
    },
    /// The n-th pin held.
    Unpin {
        nth: usize,
    },
    Advance {
        tokens: u64,
    },
    /// All slots but these go.
    Shrink {
        keep: u32,
    },
}

fn experts() -> impl Strategy<Value = Vec<u32>> {
    proptest::sample::subsequence((0..EXPERTS).collect::<Vec<_>>(), 1..=4).prop_shuffle()
}

fn call() -> impl Strategy<Value = Call> {
    let layer = 0..LAYERS;
    prop_oneof![
        5 => (layer.clone(), experts()).prop_map(|(layer, experts)| Call::Acquire { layer, experts }),
        1 => (layer.clone(), experts(), 1..40_u32, proptest::option::of(0..20_u64)).prop_map(
            |(layer, experts, span, protect)| Call::AcquireBatch { layer, experts, span, protect }
        ),
        2 => (layer, 0..EXPERTS).prop_map(|(layer, expert)| Call::Prefetch { layer, expert }),
        6 => (any::<usize>(), prop::bool::weighted(0.85)).prop_map(|(nth, ok)| Call::Complete { nth, ok }),
        7 => any::<usize>().prop_map(|nth| Call::Unpin { nth }),
        2 => (1..3_u64).prop_map(|tokens| Call::Advance { tokens }),
        1 => (0..9_u32).prop_map(|keep| Call::Shrink { keep }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    slot: SlotId,
    state: Residency,
    pins: u32,
    /// Clock of the last lookup or prefetch, and of the last decode lookup.
    touched: u64,
    decoded: Option<u64>,
    prefetched: bool,
}

/// What must be true of the cache, kept in the most obvious way.
struct Model {
    capacity: usize,
    cells: HashMap<ExpertKey, Cell>,
    pins: Vec<SlotId>,
    now: u64,
    counters: Counters,
}

impl Model {
    fn key_of(&self, slot: SlotId) -> ExpertKey {
        *self.cells.iter().find(|(_, cell)| cell.slot == slot).expect("the slot is in use").0
    }

    fn cell(&mut self, slot: SlotId) -> &mut Cell {
        let key = self.key_of(slot);
        self.cells.get_mut(&key).unwrap()
    }

    fn loading(&self) -> Vec<SlotId> {
        let mut slots: Vec<SlotId> = self
            .cells
            .values()
            .filter(|cell| cell.state == Residency::Loading)
            .map(|cell| cell.slot)
            .collect();
        slots.sort();
        slots
    }

    /// Takes out the experts that `cache` no longer knows, which must be `expected` many Resident, unpinned
    /// ones that `may_go` allows.
    fn notice_evictions(&mut self, cache: &ExpertCache, expected: usize, may_go: impl Fn(&Cell) -> bool) {
        let gone: Vec<ExpertKey> =
            self.cells.keys().copied().filter(|key| cache.peek(*key) == Residency::Absent).collect();
        assert_eq!(gone.len(), expected, "evicted {gone:?}");
        for key in gone {
            let cell = self.cells.remove(&key).unwrap();
            assert_eq!((cell.state, cell.pins), (Residency::Resident, 0), "evicted {key}: {cell:?}");
            assert!(may_go(&cell), "evicted {key}: {cell:?}");
            self.counters.evictions += 1;
            self.counters.prefetches_wasted += u64::from(cell.prefetched);
        }
    }

    /// Checks the answers to one acquire and does the same here.
    fn acquire(&mut self, cache: &ExpertCache, demands: &[Demand], grants: &[Grant], batch: Option<Batch>) {
        assert_eq!(grants.len(), demands.len());
        // Hits and joins are pinned before anything is evicted.
        for (demand, grant) in demands.iter().zip(grants) {
            let state = self.cells.get(&demand.key).map(|cell| (cell.state, cell.slot));
            match (state, grant) {
                (Some((Residency::Resident, slot)), Grant::Hit(granted)) if slot == *granted => {
                    self.counters.hits += 1;
                }
                (Some((Residency::Loading, slot)), Grant::Joined(granted)) if slot == *granted => {
                    self.counters.joined += 1;
                }
                (Some((Residency::Failed, slot)), Grant::Load(granted)) if slot == *granted => {}
                (None, Grant::Load(_) | Grant::NoRoom) => {}
                wrong => panic!("{demand:?} answered {wrong:?}"),
            }
            if let Some(slot) = grant.slot()
                && let Some(cell) = self.cells.get_mut(&demand.key)
            {
                cell.pins += 1;
                self.pins.push(slot);
                self.counters.prefetches_used += u64::from(std::mem::take(&mut cell.prefetched));
            }
        }
        let is_new = |demand: &Demand| !self.cells.contains_key(&demand.key);
        let new: Vec<(ExpertKey, SlotId)> = demands
            .iter()
            .zip(grants)
            .filter(|(demand, _)| is_new(demand))
            .filter_map(|(demand, grant)| Some((demand.key, grant.slot()?)))
            .collect();
        let free = self.capacity - self.cells.len();
        let protect = batch.and_then(|batch| batch.protect_since).map(|since| since.0);
        self.notice_evictions(cache, new.len().saturating_sub(free), |cell| {
            protect.is_none_or(|since| cell.decoded < Some(since))
        });
        for (key, slot) in new {
            let fresh = Cell {
                slot,
                state: Residency::Loading,
                pins: 1,
                touched: self.now,
                decoded: None,
                prefetched: false,
            };
            assert!(self.cells.values().all(|cell| cell.slot != slot), "{key} was given a slot in use");
            self.cells.insert(key, fresh);
            self.pins.push(slot);
        }
        for (demand, grant) in demands.iter().zip(grants) {
            match grant {
                Grant::Load(_) => self.counters.loads += 1,
                Grant::NoRoom => self.counters.streamed += 1,
                Grant::Hit(_) | Grant::Joined(_) => {}
            }
            if let Some(cell) = self.cells.get_mut(&demand.key) {
                cell.touched = self.now;
                if batch.is_none() {
                    cell.decoded = Some(self.now);
                }
                if matches!(grant, Grant::Load(_)) {
                    cell.state = Residency::Loading;
                }
            }
        }
    }

    fn check(&self, cache: &ExpertCache) {
        for key in (0..LAYERS).flat_map(|layer| (0..EXPERTS).map(move |expert| ExpertKey::new(layer, expert)))
        {
            let expected = self.cells.get(&key).map_or(Residency::Absent, |cell| cell.state);
            assert_eq!(cache.peek(key), expected, "{key}");
        }
        let count = |wanted: &dyn Fn(&Cell) -> bool| self.cells.values().filter(|cell| wanted(cell)).count();
        assert_eq!(cache.table().pinned(), count(&|cell| cell.pins > 0));
        assert_eq!(cache.table().loading(), count(&|cell| cell.state == Residency::Loading));
        assert_eq!(cache.table().resident(), count(&|cell| cell.state == Residency::Resident));
        assert!(self.cells.len() <= cache.capacity());
        assert_eq!(cache.counters(), self.counters);
        assert_eq!(
            self.counters.lookups(),
            self.counters.hits + self.counters.joined + self.counters.loads + self.counters.streamed
        );
        for (key, slot) in cache.table().residents() {
            assert_eq!(self.cells[&key].slot, slot);
            assert_eq!(cache.table().key_of(slot), Some(key));
        }
    }
}

/// Two equal caches and the model.
struct Rig {
    cache: ExpertCache,
    twin: ExpertCache,
    model: Model,
    always: bool,
}

impl Rig {
    fn new(slots: u32, kind: PolicyKind, admission: Admission) -> Self {
        let cache = || ExpertCache::new(slots, kind.build(slots, LAYERS)).with_admission(admission);
        let model = Model {
            capacity: slots as usize,
            cells: HashMap::new(),
            pins: Vec::new(),
            now: 1,
            counters: Counters::default(),
        };
        Self { cache: cache(), twin: cache(), model, always: admission == Admission::Always }
    }

    fn both<T: PartialEq + std::fmt::Debug>(&mut self, call: impl Fn(&mut ExpertCache) -> T) -> T {
        let answer = call(&mut self.cache);
        assert_eq!(answer, call(&mut self.twin), "the same calls gave different answers");
        answer
    }

    fn acquire(&mut self, layer: u32, experts: &[u32], batch: Option<Batch>) {
        let demands: Vec<Demand> = (1..)
            .zip(experts)
            .map(|(tokens, expert)| Demand { key: ExpertKey::new(layer, *expert), tokens })
            .collect();
        let now = TokenClock(self.model.now);
        let grants = self.both(|cache| match batch {
            None => cache.acquire(&demands, now),
            Some(batch) => cache.acquire_batch(&demands, now, batch),
        });
        self.model.acquire(&self.cache, &demands, &grants, batch);
        if batch.is_none() && self.always && grants.contains(&Grant::NoRoom) {
            let idle =
                self.model.cells.values().filter(|cell| cell.pins == 0 && cell.state == Residency::Resident);
            assert_eq!(idle.count(), 0, "no room although a slot could have been evicted");
            assert_eq!(self.model.cells.len(), self.model.capacity, "no room although a slot was free");
        }
    }

    fn prefetch(&mut self, key: ExpertKey) {
        let now = self.model.now;
        let Some(slot) = self.both(|cache| cache.prefetch(key, TokenClock(now))) else {
            let free = self.model.cells.len() < self.model.capacity;
            assert!(!free || self.model.cells.contains_key(&key), "a free slot was not used");
            return self.model.notice_evictions(&self.cache, 0, |_| false);
        };
        assert!(!self.model.cells.contains_key(&key), "{key} had a slot already");
        let full = usize::from(self.model.cells.len() == self.model.capacity);
        self.model.notice_evictions(&self.cache, full, |cell| cell.touched != now);
        assert!(self.model.cells.values().all(|cell| cell.slot != slot));
        let state = Residency::Loading;
        let cell = Cell { slot, state, pins: 0, touched: now, decoded: None, prefetched: true };
        self.model.cells.insert(key, cell);
        self.model.counters.prefetches += 1;
    }

    fn complete(&mut self, slot: SlotId, ok: bool) {
        self.both(|cache| cache.complete(slot, ok));
        let cell = self.model.cell(slot);
        cell.state = if ok { Residency::Resident } else { Residency::Failed };
        let freed = !ok && cell.pins == 0;
        if freed {
            let key = self.model.key_of(slot);
            self.model.cells.remove(&key);
        }
        self.model.counters.failures += u64::from(!ok);
    }

    fn unpin(&mut self, nth: usize) {
        let slot = self.model.pins.swap_remove(nth);
        self.both(|cache| cache.unpin(slot));
        let cell = self.model.cell(slot);
        cell.pins -= 1;
        if cell.pins == 0 && cell.state == Residency::Failed {
            let key = self.model.key_of(slot);
            self.model.cells.remove(&key);
        }
    }

    fn shrink(&mut self, keep: u32) {
        let keep = keep.min(u32::try_from(self.model.capacity).unwrap());
        let beyond = |cell: &&Cell| cell.slot.0 >= keep;
        let in_use = |cell: &Cell| cell.pins > 0 || cell.state == Residency::Loading;
        let may = !self.model.cells.values().filter(beyond).any(in_use);
        assert_eq!(self.both(|cache| cache.shrink(keep)), may);
        if may {
            let gone = self.model.cells.values().filter(beyond).count();
            self.model.notice_evictions(&self.cache, gone, |cell| cell.slot.0 >= keep);
            self.model.capacity = keep as usize;
        }
        assert_eq!(self.cache.capacity(), self.model.capacity);
    }

    fn run(&mut self, call: &Call) {
        let loading = self.model.loading();
        match call {
            Call::Acquire { layer, experts } => self.acquire(*layer, experts, None),
            Call::AcquireBatch { layer, experts, span, protect } => {
                let batch = Batch { span_tokens: *span, protect_since: protect.map(TokenClock) };
                self.acquire(*layer, experts, Some(batch));
            }
            Call::Prefetch { layer, expert } => self.prefetch(ExpertKey::new(*layer, *expert)),
            Call::Complete { nth, ok } if !loading.is_empty() => {
                self.complete(loading[nth % loading.len()], *ok)
            }
            Call::Unpin { nth } if !self.model.pins.is_empty() => self.unpin(nth % self.model.pins.len()),
            Call::Advance { tokens } => self.model.now += tokens,
            Call::Shrink { keep } => self.shrink(*keep),
            Call::Complete { .. } | Call::Unpin { .. } => {}
        }
        self.model.check(&self.cache);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_naive_model(
        slots in 0..9_u32,
        kind in proptest::sample::select(PolicyKind::ALL.to_vec()),
        admission in proptest::sample::select(vec![Admission::Always, Admission::IfWorth]),
        calls in prop::collection::vec(call(), 1..120),
    ) {
        let mut rig = Rig::new(slots, kind, admission);
        for call in &calls {
            rig.run(call);
        }
    }
}

fn demand(layer: u32, expert: u32) -> Demand {
    Demand { key: ExpertKey::new(layer, expert), tokens: 1 }
}

fn cache(slots: u32, kind: PolicyKind) -> ExpertCache {
    ExpertCache::new(slots, kind.build(slots, LAYERS))
}

#[test]
fn without_slots_everything_is_streamed() {
    for kind in PolicyKind::ALL {
        let mut cache = cache(0, kind);
        let grants = cache.acquire(&[demand(0, 1), demand(0, 2)], TokenClock(1));
        assert_eq!(grants, [Grant::NoRoom, Grant::NoRoom]);
        assert_eq!(cache.prefetch(ExpertKey::new(1, 0), TokenClock(1)), None);
        assert_eq!(cache.counters().streamed, 2);
        assert_eq!(cache.counters().hit_rate(), Some(0.0));
    }
}

#[test]
fn one_slot_serves_one_expert_of_a_step() {
    for kind in PolicyKind::ALL {
        let mut cache = cache(1, kind);
        let grants = cache.acquire(&[demand(0, 1), demand(0, 2)], TokenClock(1));
        assert_eq!(grants, [Grant::Load(SlotId(0)), Grant::NoRoom]);
        cache.complete(SlotId(0), true);
        cache.unpin(SlotId(0));
        assert_eq!(cache.acquire(&[demand(0, 1)], TokenClock(2)), [Grant::Hit(SlotId(0))]);
    }
}

/// The original system marked slots loaded when their read was submitted.
#[test]
fn a_submitted_read_is_not_a_hit() {
    let mut cache = cache(2, PolicyKind::Lfru);
    let key = ExpertKey::new(0, 1);
    let slot = cache.prefetch(key, TokenClock(1)).unwrap();
    assert_eq!(cache.peek(key), Residency::Loading);
    assert_eq!(cache.acquire(&[demand(0, 1)], TokenClock(1)), [Grant::Joined(slot)]);
    assert_eq!((cache.counters().hits, cache.counters().joined), (0, 1));
    cache.complete(slot, true);
    assert_eq!(cache.acquire(&[demand(0, 1)], TokenClock(2)), [Grant::Hit(slot)]);
}

#[test]
fn a_failed_read_stays_visible_until_unpinned_and_can_be_retried() {
    let mut cache = cache(1, PolicyKind::Lfru);
    let key = ExpertKey::new(0, 1);
    assert_eq!(cache.acquire(&[demand(0, 1)], TokenClock(1)), [Grant::Load(SlotId(0))]);
    cache.complete(SlotId(0), false);
    assert_eq!(cache.peek(key), Residency::Failed);
    assert_eq!(cache.acquire(&[demand(0, 2)], TokenClock(1)), [Grant::NoRoom]);
    assert_eq!(cache.acquire(&[demand(0, 1)], TokenClock(1)), [Grant::Load(SlotId(0))]);
    cache.complete(SlotId(0), false);
    cache.unpin(SlotId(0));
    assert_eq!(cache.peek(key), Residency::Failed);
    cache.unpin(SlotId(0));
    assert_eq!(cache.peek(key), Residency::Absent);
    assert_eq!(cache.counters().failures, 2);
}

#[test]
fn a_prefetch_never_evicts_what_this_token_used() {
    let mut cache = cache(1, PolicyKind::Lfru);
    cache.acquire(&[demand(0, 1)], TokenClock(1));
    cache.complete(SlotId(0), true);
    cache.unpin(SlotId(0));
    assert_eq!(cache.prefetch(ExpertKey::new(1, 0), TokenClock(1)), None);
    assert_eq!(cache.prefetch(ExpertKey::new(1, 0), TokenClock(2)), Some(SlotId(0)));
}

#[test]
fn a_batch_keeps_the_hottest_and_spares_the_decode_set() {
    let mut cache = cache(3, PolicyKind::Lfru);
    cache.acquire(&[demand(0, 0)], TokenClock(1));
    cache.complete(SlotId(0), true);
    cache.unpin(SlotId(0));
    let wave: Vec<Demand> =
        (1..=4).map(|expert| Demand { key: ExpertKey::new(0, expert), tokens: expert * 10 }).collect();
    let protecting = Batch { span_tokens: 64, protect_since: Some(TokenClock(1)) };
    let grants = cache.acquire_batch(&wave, TokenClock(65), protecting);
    let loads = [Grant::NoRoom, Grant::NoRoom, Grant::Load(SlotId(2)), Grant::Load(SlotId(1))];
    assert_eq!(grants, loads);
    assert_eq!(cache.peek(ExpertKey::new(0, 0)), Residency::Resident);
    // Without protection the stale decode expert yields to a hotter one.
    let open = Batch { span_tokens: 64, protect_since: None };
    let grants = cache.acquire_batch(&wave[1..2], TokenClock(129), open);
    assert_eq!(grants, [Grant::Load(SlotId(0))]);
}

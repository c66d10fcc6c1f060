//! Each policy against a naive statement of its rule.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, HashMap};

use hypura_core::cache::policy::{Lfru, Lru, S3Fifo};
use hypura_core::cache::{EvictionPolicy, ExpertKey, SlotId, TokenClock, Use};
use proptest::prelude::*;

const LAYERS: u32 = 5;
const EXPERTS: u32 = 5;
const SLOTS: u32 = 8;

#[derive(Clone, Debug)]
enum Call {
    /// A lookup; if the expert is absent it gets a free slot or the victim's, as in the cache.
    Use {
        layer: u32,
        expert: u32,
        weight: u32,
        span: u32,
        pinned: Vec<bool>,
    },
    /// A prefetch into a free slot.
    Insert {
        layer: u32,
        expert: u32,
    },
    Remove {
        nth: usize,
    },
    Advance {
        tokens: u64,
    },
}

fn call() -> impl Strategy<Value = Call> {
    let pinned = prop::collection::vec(prop::bool::weighted(0.3), SLOTS as usize);
    let span = prop_oneof![8 => Just(1_u32), 1 => 2..100_u32];
    prop_oneof![
        10 => (0..LAYERS, 0..EXPERTS, 1..4_u32, span, pinned).prop_map(|(layer, expert, weight, span, pinned)| {
            Call::Use { layer, expert, weight, span, pinned }
        }),
        1 => (0..LAYERS, 0..EXPERTS).prop_map(|(layer, expert)| Call::Insert { layer, expert }),
        1 => any::<usize>().prop_map(|nth| Call::Remove { nth }),
        3 => prop_oneof![Just(1_u64), Just(1), Just(1), 2..5000_u64].prop_map(|tokens| Call::Advance { tokens }),
    ]
}

/// A policy's rule, said as plainly as possible.
trait Rule {
    fn record(&mut self, key: ExpertKey, usage: Use);
    fn inserted(&mut self, key: ExpertKey, now: u64);
    /// The one to evict among `held`, which is not empty.
    fn victim(&self, held: &[(SlotId, ExpertKey)]) -> SlotId;
}

/// Drives a policy and its rule by the same calls, and compares every victim.
fn compare(policy: &mut dyn EvictionPolicy, rule: &mut dyn Rule, calls: &[Call]) {
    let mut held: BTreeMap<SlotId, ExpertKey> = BTreeMap::new();
    let mut now = 1;
    for call in calls {
        let slot_of = |key: ExpertKey| held.iter().find(|(_, other)| **other == key).map(|(slot, _)| *slot);
        let free = (0..SLOTS).map(SlotId).find(|slot| !held.contains_key(slot));
        match call {
            Call::Use { layer, expert, weight, span, pinned } => {
                let key = ExpertKey::new(*layer, *expert);
                let usage = Use { now: TokenClock(now), weight: *weight, span_tokens: *span };
                let slot = slot_of(key);
                policy.record(key, slot, usage);
                rule.record(key, usage);
                let evictable = |slot: SlotId| !pinned[slot.index()];
                let open: Vec<(SlotId, ExpertKey)> = held
                    .iter()
                    .map(|(slot, key)| (*slot, *key))
                    .filter(|(slot, _)| evictable(*slot))
                    .collect();
                let expected = (!open.is_empty()).then(|| rule.victim(&open));
                let victim = policy.victim(TokenClock(now), &evictable);
                assert_eq!(victim, expected, "at {now}, using {key}, of {open:?}");
                if slot.is_none()
                    && let Some(slot) = free.or(victim)
                {
                    if let Some(old) = held.remove(&slot) {
                        policy.remove(old, slot);
                    }
                    policy.insert(key, slot, TokenClock(now));
                    rule.inserted(key, now);
                    held.insert(slot, key);
                }
            }
            Call::Insert { layer, expert } => {
                let key = ExpertKey::new(*layer, *expert);
                if let (None, Some(slot)) = (slot_of(key), free) {
                    policy.insert(key, slot, TokenClock(now));
                    rule.inserted(key, now);
                    held.insert(slot, key);
                }
            }
            Call::Remove { nth } => {
                if let Some((slot, key)) = held.clone().iter().nth(nth % (held.len() + 1)) {
                    policy.remove(*key, *slot);
                    held.remove(slot);
                }
            }
            Call::Advance { tokens } => now += tokens,
        }
    }
}

#[derive(Default)]
struct NaiveLru {
    order: Vec<ExpertKey>,
}

impl NaiveLru {
    fn newest(&mut self, key: ExpertKey) {
        self.order.retain(|other| *other != key);
        self.order.push(key);
    }
}

impl Rule for NaiveLru {
    fn record(&mut self, key: ExpertKey, _usage: Use) {
        self.newest(key);
    }
    fn inserted(&mut self, key: ExpertKey, _now: u64) {
        self.newest(key);
    }
    fn victim(&self, held: &[(SlotId, ExpertKey)]) -> SlotId {
        let age = |key: ExpertKey| self.order.iter().position(|other| *other == key);
        held.iter().min_by_key(|(_, key)| age(*key)).unwrap().0
    }
}

/// The formula in the header of `policy/lfru.rs`, evaluated for every slot at every victim.
struct NaiveLfru {
    one_pass: f64,
    histories: HashMap<ExpertKey, (f64, u64)>,
    passed: HashMap<u32, u64>,
    at_layer: u32,
    in_batch: bool,
}

impl NaiveLfru {
    fn new() -> Self {
        let one_pass = (0..6).fold(0.5_f64, |left, _| left.sqrt());
        let (histories, passed) = (HashMap::new(), HashMap::new());
        Self { one_pass, histories, passed, at_layer: LAYERS - 1, in_batch: false }
    }

    fn decay(&self, passes: u64) -> f64 {
        if passes >= 64 * 64 { 0.0 } else { (0..passes).fold(1.0, |left, _| left * self.one_pass) }
    }

    fn standing(&self, key: ExpertKey) -> f64 {
        let (frequency, last) = self.histories[&key];
        let missed = self.passed.get(&key.layer).unwrap_or(&0).saturating_sub(last);
        frequency * (self.decay(missed) / (1.0 + missed as f64))
    }

    fn ahead(&self, layer: u32) -> f64 {
        let ahead = (layer + LAYERS - self.at_layer - 1) % LAYERS + 1;
        if self.in_batch { 1.0 } else { f64::from(ahead) }
    }
}

impl Rule for NaiveLfru {
    fn record(&mut self, key: ExpertKey, usage: Use) {
        let now = usage.now.0;
        self.at_layer = key.layer;
        self.in_batch = usage.span_tokens > 1;
        self.passed.insert(key.layer, now);
        let (frequency, last) = self.histories.get(&key).copied().unwrap_or((0.0, 0));
        let mut weight = f64::from(usage.weight);
        if usage.span_tokens > 1 {
            let span = u64::from(usage.span_tokens);
            weight = weight * (1.0 - self.decay(span)) / ((1.0 - self.decay(1)) * span as f64);
        }
        self.histories.insert(key, (frequency * self.decay(now - last) + weight, now));
    }
    fn inserted(&mut self, key: ExpertKey, now: u64) {
        self.histories.entry(key).or_insert((0.0, now));
    }
    fn victim(&self, held: &[(SlotId, ExpertKey)]) -> SlotId {
        let rank = |slot: SlotId, key: ExpertKey| {
            let standing = self.standing(key);
            // None of the numbers is negative, so their bits order as they do.
            ((standing / self.ahead(key.layer)).to_bits(), key.layer, standing.to_bits(), slot)
        };
        held.iter().map(|(slot, key)| rank(*slot, *key)).min().unwrap().3
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lru_evicts_the_least_recent(calls in prop::collection::vec(call(), 1..200)) {
        compare(&mut Lru::new(SLOTS), &mut NaiveLru::default(), &calls);
    }

    /// The heaps, their lazy rebuilding and stale entries change nothing of what the formula says.
    #[test]
    fn lfru_evicts_the_least_valued(calls in prop::collection::vec(call(), 1..200)) {
        compare(&mut Lfru::new(SLOTS, LAYERS), &mut NaiveLfru::new(), &calls);
    }

    /// The number of layers is only a hint: layers beyond it are met and remembered.
    #[test]
    fn lfru_learns_layers_that_were_not_announced(calls in prop::collection::vec(call(), 1..50)) {
        let all_layers_seen: Vec<Call> = (0..LAYERS)
            .map(|layer| Call::Use { layer, expert: 0, weight: 1, span: 1, pinned: vec![true; SLOTS as usize] })
            .chain(calls)
            .collect();
        compare(&mut Lfru::new(SLOTS, 0), &mut NaiveLfru::new(), &all_layers_seen);
    }
}

#[test]
fn lfru_prefers_the_chance_that_comes_sooner() {
    let mut policy = Lfru::new(2, 4);
    let usage = |now| Use { now: TokenClock(now), weight: 1, span_tokens: 1 };
    let (near, far) = (ExpertKey::new(3, 0), ExpertKey::new(1, 0));
    for (slot, key) in [(SlotId(0), far), (SlotId(1), near)] {
        policy.record(key, None, usage(1));
        policy.insert(key, slot, TokenClock(1));
    }
    // Both were used once in token 1. In token 2, layer 2 comes before layer 3, but layer 1 is a round away.
    policy.record(ExpertKey::new(1, 1), None, usage(2));
    policy.record(ExpertKey::new(2, 0), None, usage(2));
    assert_eq!(policy.victim(TokenClock(2), &|_| true), Some(SlotId(0)));
}

#[test]
fn lfru_remembers_the_evicted() {
    let mut policy = Lfru::new(2, 1);
    let (old, new) = (ExpertKey::new(0, 0), ExpertKey::new(0, 1));
    let usage = |now| Use { now: TokenClock(now), weight: 1, span_tokens: 1 };
    for now in 1..=5 {
        policy.record(old, None, usage(now));
    }
    policy.record(new, None, usage(5));
    policy.insert(old, SlotId(0), TokenClock(5));
    policy.insert(new, SlotId(1), TokenClock(5));
    policy.remove(old, SlotId(0));
    policy.insert(old, SlotId(0), TokenClock(5));
    assert_eq!(policy.victim(TokenClock(5), &|_| true), Some(SlotId(1)));
}

fn s3fifo_use(policy: &mut S3Fifo, expert: u32, slot: Option<u32>) {
    let usage = Use { now: TokenClock(1), weight: 1, span_tokens: 1 };
    policy.record(ExpertKey::new(0, expert), slot.map(SlotId), usage);
}

fn s3fifo_full() -> S3Fifo {
    let mut policy = S3Fifo::new(10);
    for expert in 0..10 {
        policy.insert(ExpertKey::new(0, expert), SlotId(expert), TokenClock(1));
    }
    policy
}

#[test]
fn s3fifo_evicts_what_was_used_once_and_promotes_what_was_used_more() {
    let mut policy = s3fifo_full();
    for slot in [0, 0, 1] {
        s3fifo_use(&mut policy, slot, Some(slot));
    }
    // Slot 0 was used twice since it came, so it moves to the main queue; slot 1 once, so it goes.
    assert_eq!(policy.victim(TokenClock(1), &|_| true), Some(SlotId(1)));
    policy.remove(ExpertKey::new(0, 1), SlotId(1));
    assert_eq!(policy.victim(TokenClock(1), &|_| true), Some(SlotId(2)));
}

#[test]
fn s3fifo_takes_a_ghost_back_into_the_main_queue() {
    let mut policy = s3fifo_full();
    policy.remove(ExpertKey::new(0, 0), SlotId(0));
    policy.insert(ExpertKey::new(0, 0), SlotId(0), TokenClock(1));
    assert_eq!(policy.value(SlotId(0), TokenClock(1)), 1.0);
    policy.remove(ExpertKey::new(0, 9), SlotId(9));
    policy.insert(ExpertKey::new(0, 77), SlotId(9), TokenClock(1));
    assert_eq!(policy.value(SlotId(9), TokenClock(1)), 0.0);
}

#[test]
fn s3fifo_finds_the_last_evictable_slot_wherever_it_is() {
    let mut policy = s3fifo_full();
    for slot in 0..10 {
        for _ in 0..3 {
            s3fifo_use(&mut policy, slot, Some(slot));
        }
    }
    for wanted in (0..10).map(SlotId) {
        assert_eq!(policy.victim(TokenClock(1), &|slot| slot == wanted), Some(wanted));
    }
    assert_eq!(policy.victim(TokenClock(1), &|_| false), None);
}

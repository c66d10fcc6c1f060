//! Two caches as two tiers: what the upper one evicts comes to the lower one.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a panic is how a test fails")]

use hypura_core::cache::{Demand, ExpertCache, ExpertKey, Grant, PolicyKind, Residency, TokenClock};

const LAYERS: u32 = 6;
const EXPERTS: u32 = 64;
const USED: usize = 4;
const TOKENS: u64 = 400;

/// Pseudo-random routes of which some experts are used more often than others.
struct Routes(u64);

impl Routes {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// The experts of a layer: of two drawn the one with the smaller number, which makes that one hotter.
    fn layer(&mut self, layer: u32) -> Vec<Demand> {
        let mut chosen: Vec<u32> = Vec::new();
        while chosen.len() < USED {
            let (a, b) = (self.next() as u32 % EXPERTS, self.next() as u32 % EXPERTS);
            let expert = (a.min(b) * 7 + layer) % EXPERTS;
            if !chosen.contains(&expert) {
                chosen.push(expert);
            }
        }
        chosen.into_iter().map(|expert| Demand { key: ExpertKey::new(layer, expert), tokens: 1 }).collect()
    }
}

fn cache(slots: u32) -> ExpertCache {
    ExpertCache::new(slots, PolicyKind::default().build(slots, LAYERS))
}

/// Looks up and reads; returns how many had to be read.
fn read_into(cache: &mut ExpertCache, demands: &[Demand], now: TokenClock) -> usize {
    let grants = cache.acquire(demands, now);
    for grant in &grants {
        if let Grant::Load(slot) = grant {
            cache.complete(*slot, true);
        }
        cache.unpin(grant.slot().unwrap());
    }
    grants.iter().filter(|grant| matches!(grant, Grant::Load(_))).count()
}

struct Tiers {
    upper: ExpertCache,
    lower: ExpertCache,
    reads: usize,
    moved: usize,
}

impl Tiers {
    fn new(upper: u32, lower: u32) -> Self {
        let mut tiers = Self { upper: cache(upper), lower: cache(lower), reads: 0, moved: 0 };
        tiers.upper.note_evictions();
        tiers
    }

    fn look_up(&mut self, demands: &[Demand], now: TokenClock) {
        let (known, missing): (Vec<Demand>, Vec<Demand>) =
            demands.iter().partition(|demand| self.upper.peek(demand.key) == Residency::Resident);
        self.lower.note_uses(&known, now, 1);
        let below = self.lower.acquire(&missing, now);
        let above = self.upper.acquire(demands, now);
        for grant in &below {
            if let Grant::Load(slot) = grant {
                self.reads += 1;
                self.lower.complete(*slot, true);
            }
        }
        for (key, _) in self.upper.take_evictions() {
            if let Some(slot) = self.lower.adopt(key, now) {
                self.moved += 1;
                self.lower.complete(slot, true);
            }
        }
        for grant in &above {
            if let Grant::Load(slot) = grant {
                self.upper.complete(*slot, true);
            }
            self.upper.unpin(grant.slot().unwrap());
        }
        for slot in below.iter().filter_map(|grant| grant.slot()) {
            self.lower.set_spare(slot);
            self.lower.unpin(slot);
        }
    }
}

/// Reads of the last half of the tokens: of two tiers, of two that know nothing of each other, and of one
/// cache as large as both but for the spares that stay.
fn reads(upper: u32, lower: u32) -> (usize, usize, usize) {
    let mut routes = Routes(7);
    let mut tiers = Tiers::new(upper, lower);
    let mut apart = (cache(upper), cache(lower));
    let mut one = cache(upper + lower - lower / 16);
    let (mut of_apart, mut of_one) = (0, 0);
    for token in 1..=TOKENS {
        if token == TOKENS / 2 {
            (tiers.reads, of_apart, of_one) = (0, 0, 0);
        }
        let now = TokenClock(token);
        for layer in 0..LAYERS {
            let demands = routes.layer(layer);
            tiers.look_up(&demands, now);
            of_one += read_into(&mut one, &demands, now);
            let missing: Vec<Demand> = demands
                .iter()
                .filter(|demand| apart.0.peek(demand.key) == Residency::Absent)
                .copied()
                .collect();
            read_into(&mut apart.0, &demands, now);
            of_apart += read_into(&mut apart.1, &missing, now);
        }
    }
    (tiers.reads, of_apart, of_one)
}

#[test]
fn two_tiers_read_hardly_more_than_one_cache_as_large_as_both() {
    for (upper, lower) in [(96, 128), (64, 192), (160, 160)] {
        let (tiers, apart, one) = reads(upper, lower);
        assert!(tiers * 10 <= one * 11, "{upper} over {lower}: {tiers} reads, one cache {one}");
        assert!(tiers < apart, "{upper} over {lower}: {tiers} reads, {apart} without bringing back");
    }
}

#[test]
fn nothing_is_read_twice_where_both_tiers_have_room_for_all_experts() {
    let all = LAYERS * EXPERTS;
    // The lower tier keeps some spares.
    let mut tiers = Tiers::new(all / 2, all / 2 + 40);
    let mut routes = Routes(3);
    for token in 1..=TOKENS {
        for layer in 0..LAYERS {
            tiers.look_up(&routes.layer(layer), TokenClock(token));
        }
    }
    assert!(tiers.reads <= all as usize, "{} reads of {all} experts", tiers.reads);
    assert!(tiers.moved > 0);
}

#[test]
fn nothing_moves_where_the_lower_tier_has_room_for_all_experts() {
    let all = LAYERS * EXPERTS;
    let mut tiers = Tiers::new(64, all);
    let mut routes = Routes(5);
    for token in 1..=TOKENS {
        for layer in 0..LAYERS {
            tiers.look_up(&routes.layer(layer), TokenClock(token));
        }
    }
    assert_eq!(tiers.moved, 0);
    assert!(tiers.reads <= all as usize);
}

#[test]
fn spares_go_first_and_a_lookup_keeps_one() {
    let demand = |expert| Demand { key: ExpertKey::new(0, expert), tokens: 1 };
    let mut cache = cache(4);
    for expert in 0..4 {
        // The longer here, the more often used.
        for token in 0..4 - expert {
            read_into(&mut cache, &[demand(expert)], TokenClock(u64::from(expert * 4 + token)));
        }
    }
    for expert in [0, 1] {
        let slot = cache.slot_of(ExpertKey::new(0, expert)).unwrap();
        cache.set_spare(slot);
    }
    read_into(&mut cache, &[demand(0)], TokenClock(20));
    read_into(&mut cache, &[demand(9)], TokenClock(21));
    assert_eq!(cache.peek(ExpertKey::new(0, 1)), Residency::Absent, "it was spare");
    assert_eq!(cache.peek(ExpertKey::new(0, 0)), Residency::Resident, "somebody came for it");
    let slot = cache.slot_of(ExpertKey::new(0, 0)).unwrap();
    cache.set_spare(slot);
    assert_eq!(cache.adopt(ExpertKey::new(0, 0), TokenClock(22)), None, "it is here");
    read_into(&mut cache, &[demand(10)], TokenClock(23));
    assert_eq!(cache.peek(ExpertKey::new(0, 0)), Residency::Resident, "and spare no longer");
}

#[test]
fn slots_that_are_evicted_ahead_are_given_to_nobody_before_they_were_copied_from() {
    let demand = |expert| Demand { key: ExpertKey::new(0, expert), tokens: 1 };
    let mut cache = cache(8);
    for expert in 0..8 {
        read_into(&mut cache, &[demand(expert)], TokenClock(u64::from(expert)));
    }
    let gone = cache.evict_ahead(3, TokenClock(9));
    assert_eq!(gone.len(), 3);
    assert!(cache.evict_ahead(3, TokenClock(9)).is_empty(), "as many are on their way");
    assert!(gone.iter().all(|(key, _)| cache.peek(*key) == Residency::Absent));
    assert!(!cache.shrink(2), "they are in use");
    let taken = cache.prefetch(ExpertKey::new(0, 20), TokenClock(10)).unwrap();
    assert!(gone.iter().all(|(_, slot)| *slot != taken));
    cache.complete(taken, true);
    gone.iter().for_each(|(_, slot)| cache.free_evicted(*slot));
    let taken = cache.prefetch(ExpertKey::new(0, 21), TokenClock(10)).unwrap();
    assert!(gone.iter().any(|(_, slot)| *slot == taken));
}

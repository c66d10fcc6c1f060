//! Slots whose first write costs more than a read: they are taken only where nothing can be evicted.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use hypura_core::cache::{Demand, ExpertCache, ExpertKey, Grant, PolicyKind, SlotId, TokenClock};

fn cache(slots: u32) -> ExpertCache {
    ExpertCache::new(slots, PolicyKind::Lfru.build(slots, 2))
}

/// Looks experts of a layer up, and has all of them read.
fn step(cache: &mut ExpertCache, layer: u32, experts: &[u32], now: u64) -> Vec<Grant> {
    let demands: Vec<Demand> =
        experts.iter().map(|expert| Demand { key: ExpertKey::new(layer, *expert), tokens: 1 }).collect();
    let grants = cache.acquire(&demands, TokenClock(now));
    for grant in &grants {
        if let Grant::Load(slot) = grant {
            cache.complete(*slot, true);
        }
        cache.unpin(grant.slot().unwrap());
    }
    grants
}

/// Under 10 GiB the first tokens were slower than under 6: each miss paid for fresh memory.
#[test]
fn fresh_slots_are_left_alone_while_something_can_be_evicted() {
    let mut cache = cache(8);
    cache.set_fresh_from(Some(SlotId(2)));
    let all_new = step(&mut cache, 0, &[0, 1, 2], 1);
    assert_eq!(all_new, [0, 1, 2].map(|slot| Grant::Load(SlotId(slot))), "a step needs slots for all");
    for (now, expert) in (2..).zip(3..9) {
        let grants = step(&mut cache, 0, &[expert], now);
        assert!(matches!(grants[..], [Grant::Load(SlotId(..=2))]), "{grants:?}");
    }
    assert_eq!(cache.counters().evictions, 6);
    // As they are touched, they are used.
    cache.set_fresh_from(Some(SlotId(4)));
    assert_eq!(step(&mut cache, 0, &[20], 9), [Grant::Load(SlotId(3))]);
    assert!(cache.prefetch(ExpertKey::new(1, 0), TokenClock(9)).is_some_and(|slot| slot.index() < 4));
    cache.set_fresh_from(None);
    let slots: Vec<Grant> =
        (10..).zip(30..34).flat_map(|(now, one)| step(&mut cache, 1, &[one], now)).collect();
    assert_eq!(slots, [4, 5, 6, 7].map(|slot| Grant::Load(SlotId(slot))));
}

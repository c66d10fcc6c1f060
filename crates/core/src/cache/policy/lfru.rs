//! LFRU, the default: least frequently *and* recently used, weighed by how soon the layer comes round again.
//!
//! `value = frequency / ((1 + missed) · ahead)`, where
//! * *frequency* counts the uses of the expert, each halved every 64 passes of its layer since;
//! * *missed* is how many times its layer has been passed since its last use: chances it had and did not
//!   take;
//! * *ahead* is how many layers the forward pass has to go until the expert's layer (1 for the next layer,
//!   the number of layers for the one just computed). While a prefill ubatch runs it counts as 1 for all:
//!   nearly every expert of a layer is used then, so only the frequency tells them apart.
//!
//! History of evicted experts is kept ("ghosts"), so an expert that returns is not taken for a new one.
//!
//! Source: LFRU without *ahead* is the mixture of recency and frequency of Lee et al., "LRFU", IEEE
//! Transactions on Computers 50(12), 2001, in a form that needs no tuning; *ahead* is what Belady's rule says
//! about a cyclic scan: of two experts equally likely to be used at their next chance, drop the one whose
//! chance is later. Weakness: it knows nothing of the text. When the topic changes, old favourites stay for
//! some tokens; and routers whose choices do not depend on their past leave it nothing to learn.
//!
//! Cost: no scan over all slots for each victim. Until its layer is passed again, the order of the experts
//! *within* a layer does not change (*ahead* is common to them), so each layer keeps a heap, rebuilt at most
//! once a pass and only if a victim is sought; a victim is the best of the layers' heads. The choice is
//! exact: the least value, and of equal ones the lowest layer, then the least value before *ahead*, then the
//! lowest slot. Sums, products and quotients only, no transcendental functions: every platform decides alike.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::{EvictionPolicy, Use};
use crate::cache::{ExpertKey, SlotId, TokenClock};

/// The half-life of a use is 2^6 = 64 passes. On the traces measured, 16 to 128 differ by less than one
/// point.
const HALF_LIFE_LOG2: u32 = 6;
/// Uses older than this many passes (64 half-lives) count nothing.
const DECAY_STEPS: usize = 64 << HALF_LIFE_LOG2;

/// Past uses of one expert.
#[derive(Clone, Copy, Debug, Default)]
struct History {
    /// Decayed count of uses, as of `last`.
    frequency: f64,
    last: TokenClock,
}

/// An expert that holds a slot.
#[derive(Clone, Copy, Debug)]
struct Member {
    slot: SlotId,
    history: History,
    /// What the heap, while it is built, knows as the present standing.
    standing: u64,
}

/// An expert in its layer's heap; stale unless the slot's member has the same standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Bits of the value before *ahead*: for numbers that are not negative, bits order as the numbers do.
    standing: u64,
    slot: SlotId,
}

#[derive(Debug, Default)]
struct Layer {
    /// The clock of the last pass.
    passed: TokenClock,
    members: Vec<Member>,
    heap: BinaryHeap<Reverse<Candidate>>,
    /// The heap was built since the last pass.
    built: bool,
}

/// Where a slot's expert stands in the layers' tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    layer: usize,
    member: usize,
}

/// Least frequently and recently used.
#[derive(Debug)]
pub struct Lfru {
    layers: Vec<Layer>,
    /// For each layer, a value before *ahead* that none of its members is below: the head of its heap.
    floors: Vec<f64>,
    places: Vec<Option<Place>>,
    ghosts: HashMap<ExpertKey, History>,
    fading: Fading,
    /// The layer being computed, and whether by a prefill ubatch.
    at_layer: usize,
    in_batch: bool,
    /// Candidates popped and put back within one search; empty between searches.
    aside: Vec<Reverse<Candidate>>,
}

/// How uses lose weight with the passes of their layer.
#[derive(Debug)]
struct Fading {
    /// What is left of a use after `n` passes.
    decay: Vec<f64>,
    /// The same, divided by `1 + n`.
    standing: Vec<f64>,
}

impl Fading {
    #[expect(clippy::cast_precision_loss, reason = "small table indices")]
    fn new() -> Self {
        // Square roots are exactly rounded everywhere; exp2 is not.
        let one_pass = (0..HALF_LIFE_LOG2).fold(0.5_f64, |left, _| left.sqrt());
        let decay: Vec<f64> =
            std::iter::successors(Some(1.0), |left| Some(left * one_pass)).take(DECAY_STEPS).collect();
        let standing = decay.iter().enumerate().map(|(passes, left)| left / (1 + passes) as f64).collect();
        Self { decay, standing }
    }

    fn at(table: &[f64], passes: u64) -> f64 {
        usize::try_from(passes).ok().and_then(|passes| table.get(passes)).copied().unwrap_or(0.0)
    }

    /// The decayed count of uses at `now`.
    fn frequency(&self, history: History, now: TokenClock) -> f64 {
        history.frequency * Self::at(&self.decay, now.since(history.last))
    }

    /// The value before *ahead* when the layer was last passed at `passed`.
    fn standing(&self, history: History, passed: TokenClock) -> f64 {
        history.frequency * Self::at(&self.standing, passed.since(history.last))
    }

    /// The use of `weight` tokens spread evenly over the span of tokens that ends now, each decayed by its
    /// age.
    #[expect(clippy::cast_precision_loss, reason = "a number of tokens")]
    fn weight(&self, usage: Use) -> f64 {
        let weight = f64::from(usage.weight);
        let span = u64::from(usage.span_tokens.max(1));
        if span == 1 {
            return weight;
        }
        // The geometric series of the decay over the span, divided by its length.
        let (one, all) = (Self::at(&self.decay, 1), Self::at(&self.decay, span));
        weight * (1.0 - all) / ((1.0 - one) * span as f64)
    }
}

impl Lfru {
    /// A policy for slots `0..slots` of a model of `layers` layers (all of them, with routed experts or
    /// without).
    pub fn new(slots: u32, layers: u32) -> Self {
        let mut policy = Self {
            layers: Vec::new(),
            floors: Vec::new(),
            places: vec![None; slots as usize],
            ghosts: HashMap::new(),
            fading: Fading::new(),
            at_layer: (layers as usize).saturating_sub(1),
            in_batch: false,
            aside: Vec::new(),
        };
        policy.grow(layers as usize);
        policy
    }

    fn grow(&mut self, layers: usize) {
        if layers > self.layers.len() {
            self.layers.resize_with(layers, Layer::default);
            self.floors.resize(layers, 0.0);
        }
    }

    /// Layers until `layer` is computed: 1 for the next one, all of them for the present one.
    #[expect(clippy::cast_precision_loss, reason = "layer counts are small")]
    fn ahead(&self, layer: usize) -> f64 {
        let at = self.at_layer;
        match layer {
            _ if self.in_batch => 1.0,
            _ if layer > at => (layer - at) as f64,
            _ => (layer + self.layers.len() - at) as f64,
        }
    }

    /// Sets the history of the expert in a slot, and tells a built heap.
    fn set_history(&mut self, place: Place, history: History) {
        let Layer { passed, members, heap, built } = &mut self.layers[place.layer];
        let member = &mut members[place.member];
        let standing = self.fading.standing(history, *passed);
        *member = Member { slot: member.slot, history, standing: standing.to_bits() };
        if *built {
            heap.push(Reverse(Candidate { standing: member.standing, slot: member.slot }));
            self.floors[place.layer] = self.floors[place.layer].min(standing);
        }
    }

    fn build_heap(&mut self, layer: usize) {
        let Layer { passed, members, heap, built } = &mut self.layers[layer];
        let mut candidates = std::mem::take(heap).into_vec();
        candidates.clear();
        candidates.extend(members.iter_mut().map(|member| {
            member.standing = self.fading.standing(member.history, *passed).to_bits();
            Reverse(Candidate { standing: member.standing, slot: member.slot })
        }));
        *heap = BinaryHeap::from(candidates);
        *built = true;
    }

    /// Whether the heap's candidate still says what its slot holds.
    fn is_current(&self, layer: usize, candidate: Candidate) -> bool {
        self.places[candidate.slot.index()].is_some_and(|place| {
            place.layer == layer && self.layers[layer].members[place.member].standing == candidate.standing
        })
    }

    /// The least valued evictable slot of a layer, if its value is below `bound`.
    fn best_of_layer(
        &mut self,
        layer: usize,
        bound: f64,
        evictable: &dyn Fn(SlotId) -> bool,
    ) -> Option<(f64, SlotId)> {
        if !self.layers[layer].built {
            self.build_heap(layer);
        }
        let ahead = self.ahead(layer);
        let mut best = None;
        while let Some(&Reverse(head)) = self.layers[layer].heap.peek() {
            let current = self.is_current(layer, head);
            if current {
                let value = f64::from_bits(head.standing) / ahead;
                if value >= bound {
                    break;
                }
                if evictable(head.slot) {
                    best = Some((value, head.slot));
                    break;
                }
            }
            let popped = self.layers[layer].heap.pop();
            if current {
                self.aside.extend(popped);
            }
        }
        let heap = &mut self.layers[layer].heap;
        heap.extend(self.aside.drain(..));
        self.floors[layer] = heap.peek().map_or(f64::INFINITY, |head| f64::from_bits(head.0.standing));
        best
    }
}

impl EvictionPolicy for Lfru {
    fn name(&self) -> &'static str {
        "lfru"
    }

    fn record(&mut self, key: ExpertKey, slot: Option<SlotId>, usage: Use) {
        let index = key.layer as usize;
        self.grow(index + 1);
        self.at_layer = index;
        self.in_batch = usage.span_tokens > 1;
        let layer = &mut self.layers[index];
        if layer.passed != usage.now {
            layer.passed = usage.now;
            layer.built = false;
            self.floors[index] = 0.0;
        }
        let place = slot.and_then(|slot| self.places[slot.index()]);
        let old = match place {
            Some(place) => self.layers[place.layer].members[place.member].history,
            None => self.ghosts.get(&key).copied().unwrap_or_default(),
        };
        let frequency = self.fading.frequency(old, usage.now) + self.fading.weight(usage);
        let history = History { frequency, last: usage.now };
        match place {
            Some(place) => self.set_history(place, history),
            None => {
                self.ghosts.insert(key, history);
            }
        }
    }

    fn insert(&mut self, key: ExpertKey, slot: SlotId, now: TokenClock) {
        let layer = key.layer as usize;
        self.grow(layer + 1);
        let history = self.ghosts.remove(&key).unwrap_or(History { frequency: 0.0, last: now });
        let members = &mut self.layers[layer].members;
        let place = Place { layer, member: members.len() };
        members.push(Member { slot, history, standing: 0 });
        self.places[slot.index()] = Some(place);
        self.set_history(place, history);
    }

    fn remove(&mut self, key: ExpertKey, slot: SlotId) {
        let Some(place) = self.places[slot.index()].take() else { return };
        let members = &mut self.layers[place.layer].members;
        let gone = members.swap_remove(place.member);
        if let Some(moved) = members.get(place.member) {
            self.places[moved.slot.index()] = Some(place);
        }
        self.ghosts.insert(key, gone.history);
    }

    fn victim(&mut self, _now: TokenClock, evictable: &dyn Fn(SlotId) -> bool) -> Option<SlotId> {
        let mut best: Option<(f64, SlotId)> = None;
        for layer in 0..self.layers.len() {
            let bound = best.map_or(f64::INFINITY, |(value, _)| value);
            if self.floors[layer] / self.ahead(layer) < bound {
                best = self.best_of_layer(layer, bound, evictable).or(best);
            }
        }
        best.map(|(_, slot)| slot)
    }

    fn value(&self, slot: SlotId, _now: TokenClock) -> f64 {
        let Some(Place { layer, member }) = self.places[slot.index()] else { return 0.0 };
        let Layer { passed, members, .. } = &self.layers[layer];
        self.fading.standing(members[member].history, *passed) / self.ahead(layer)
    }

    fn prospect(&self, key: ExpertKey, now: TokenClock, expected_uses: u32) -> f64 {
        let layer = key.layer as usize;
        let history = self.ghosts.get(&key).copied().unwrap_or_default();
        let standing = if expected_uses == 0 {
            let passed = self.layers.get(layer).map_or(now, |layer| layer.passed);
            self.fading.standing(history, passed)
        } else {
            self.fading.frequency(history, now) + f64::from(expected_uses)
        };
        standing / self.ahead(layer)
    }
}

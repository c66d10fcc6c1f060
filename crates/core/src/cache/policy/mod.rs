//! Who is evicted. A policy is a pure decision: no clock, thread or randomness of its own, so that a replay
//! of the same calls gives the same victims.
//!
//! * `lfru`: decayed frequency, recency and layer distance; the default
//! * `lru`: least recently used; the baseline
//! * `s3fifo`: three queues; the best known of the queue family
//! * `belady`: the optimum with a known future; for the simulator
//! * `slot_list`: the queue that the simple ones share
//!
//! The cache tells a policy three things in a fixed order: every demand lookup is `record`ed (hit or miss, so
//! that history of absent experts can count); then a miss may ask for a `victim`, `remove` it and `insert`
//! the new expert. Prefetches `insert` without a `record`.

mod belady;
mod lfru;
mod lru;
mod s3fifo;
mod slot_list;

pub use belady::Belady;
pub use lfru::Lfru;
pub use lru::Lru;
pub use s3fifo::S3Fifo;

use super::{ExpertKey, SlotId, TokenClock};

/// One demand lookup as a policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The clock of the step. Never earlier than that of any former call.
    pub now: TokenClock,
    /// How many tokens of the step use the expert (at least 1).
    pub weight: u32,
    /// How many tokens the step spans: 1 for a decode step, `n` for a prefill ubatch of `n` tokens.
    pub span_tokens: u32,
}

/// Chooses victims among the experts that hold slots.
pub trait EvictionPolicy {
    /// Short lower-case name for tables and options.
    fn name(&self) -> &'static str;

    /// A demand lookup of `key`, which is in `slot` (Resident or Loading) or nowhere.
    fn record(&mut self, key: ExpertKey, slot: Option<SlotId>, usage: Use);

    /// `key` now holds `slot`, which was free.
    fn insert(&mut self, key: ExpertKey, slot: SlotId, now: TokenClock);

    /// `key` no longer holds `slot`. Its history may be kept.
    fn remove(&mut self, key: ExpertKey, slot: SlotId);

    /// The slot to evict at `now` among those for which `evictable` says yes; `None` only when there is none.
    /// The choice is not an eviction: the cache calls `remove` if it goes through with it.
    fn victim(&mut self, now: TokenClock, evictable: &dyn Fn(SlotId) -> bool) -> Option<SlotId>;

    /// What keeping the expert in `slot` is worth at `now`: larger is worth more. Comparable only with values
    /// and prospects of the same policy between two `record`s.
    fn value(&self, slot: SlotId, now: TokenClock) -> f64;

    /// What keeping the absent `key` would be worth at `now` if it were used `expected_uses` more times at
    /// once: compared with the value of a victim to decide whether `key` deserves that slot.
    fn prospect(&self, key: ExpertKey, now: TokenClock, expected_uses: u32) -> f64;
}

/// The policies that need no future, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyKind {
    /// [`Lfru`].
    #[default]
    Lfru,
    /// [`Lru`].
    Lru,
    /// [`S3Fifo`].
    S3Fifo,
}

impl PolicyKind {
    /// All of them, the default first.
    pub const ALL: [PolicyKind; 3] = [PolicyKind::Lfru, PolicyKind::Lru, PolicyKind::S3Fifo];

    /// The name that [`EvictionPolicy::name`] of its policy gives.
    pub const fn name(self) -> &'static str {
        match self {
            PolicyKind::Lfru => "lfru",
            PolicyKind::Lru => "lru",
            PolicyKind::S3Fifo => "s3fifo",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A fresh policy for slots `0..slots` of a model of `layers` layers.
    pub fn build(self, slots: u32, layers: u32) -> Box<dyn EvictionPolicy + Send> {
        match self {
            PolicyKind::Lfru => Box::new(Lfru::new(slots, layers)),
            PolicyKind::Lru => Box::new(Lru::new(slots)),
            PolicyKind::S3Fifo => Box::new(S3Fifo::new(slots)),
        }
    }
}

//! What a policy is told and asked. The cache tells it in a fixed order: every demand lookup is `record`ed
//! (hit or miss, so that history of absent experts can count); then a miss may ask for a `victim`, `remove`
//! it and `insert` the new expert. Prefetches `insert` without a `record`.

use crate::cache::{ExpertKey, SlotId, TokenClock};

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

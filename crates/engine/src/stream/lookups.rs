//! Lookups of experts, by kind of step, as the caches count them.

use hypura_core::cache::Counters;

/// Most tokens of a step that counts as decoding: their experts are looked up and kept like those of one
/// token.
pub(crate) const DECODE_TOKENS: usize = hypura_core::cache::DECODE_TOKENS as usize;

/// Lookups of one kind of step, one per expert per step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lookups {
    /// Found in memory.
    pub hits: u64,
    /// Read for this step, on demand or because a prefetch guessed right.
    pub misses: u64,
    /// Of the misses, those whose read a prefetch had started.
    pub prefetched: u64,
    /// Of those, the ones whose read was still under way.
    pub late: u64,
}

impl Lookups {
    /// Adds what a cache counted in one step. An expert that is there only because a prefetch read it for
    /// this step is no hit.
    pub(super) fn count(&mut self, step: &Counters) {
        self.hits += (step.hits + step.joined).saturating_sub(step.prefetches_used);
        self.misses += step.misses() + step.prefetches_used;
        self.prefetched += step.prefetches_used;
        self.late += step.joined;
    }
}

/// What was looked up and read since the model was loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LookupCounts {
    /// Of decode steps.
    pub decode: Lookups,
    /// Of larger ones.
    pub prefill: Lookups,
    /// Bytes that rows of decode steps did not have to read, because another row of the same step did.
    pub shared_bytes: u64,
}

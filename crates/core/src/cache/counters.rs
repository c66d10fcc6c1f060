//! What an expert cache counts.
//!
//! One lookup is one expert in one step of one layer, however many graph nodes or tokens of the step use it.
//! Invariant: `lookups() == hits + joined + loads + streamed`; every load, prefetch and streamed lookup is
//! one read.

/// Counts since the cache was made; only ever increasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lookups that found the expert Resident.
    pub hits: u64,
    /// Lookups that found a read of the expert under way (a prefetch, or a load that another sequence asked
    /// for).
    pub joined: u64,
    /// Misses that were given a slot to load into.
    pub loads: u64,
    /// Misses that were given no slot; the caller reads the expert into a throwaway buffer.
    pub streamed: u64,
    /// Experts that lost their slot to another one.
    pub evictions: u64,
    /// Slots given to predicted experts.
    pub prefetches: u64,
    /// Prefetched experts that a later lookup used (each prefetch counts once).
    pub prefetches_used: u64,
    /// Prefetched experts that lost their slot before any lookup used them.
    pub prefetches_wasted: u64,
    /// Reads reported as failed.
    pub failures: u64,
}

impl Counters {
    /// All lookups: one per expert per step.
    pub const fn lookups(&self) -> u64 {
        self.hits + self.joined + self.misses()
    }

    /// Lookups that had to start a read.
    pub const fn misses(&self) -> u64 {
        self.loads + self.streamed
    }

    /// Experts read from storage: misses and prefetches. Times the bytes of an expert, this is what the disk
    /// did.
    pub const fn reads(&self) -> u64 {
        self.misses() + self.prefetches
    }

    /// Share of lookups that needed no new read, in `0..=1`; `None` before the first lookup.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people; counts stay far below 2^53")]
    pub fn hit_rate(&self) -> Option<f64> {
        let lookups = self.lookups();
        (lookups > 0).then(|| (self.hits + self.joined) as f64 / lookups as f64)
    }

    /// What was counted since `earlier`, an older copy of the same counters.
    #[must_use]
    pub const fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            hits: self.hits - earlier.hits,
            joined: self.joined - earlier.joined,
            loads: self.loads - earlier.loads,
            streamed: self.streamed - earlier.streamed,
            evictions: self.evictions - earlier.evictions,
            prefetches: self.prefetches - earlier.prefetches,
            prefetches_used: self.prefetches_used - earlier.prefetches_used,
            prefetches_wasted: self.prefetches_wasted - earlier.prefetches_wasted,
            failures: self.failures - earlier.failures,
        }
    }

    /// These counts and `other`'s together.
    #[must_use]
    pub const fn plus(&self, other: &Counters) -> Counters {
        Counters {
            hits: self.hits + other.hits,
            joined: self.joined + other.joined,
            loads: self.loads + other.loads,
            streamed: self.streamed + other.streamed,
            evictions: self.evictions + other.evictions,
            prefetches: self.prefetches + other.prefetches,
            prefetches_used: self.prefetches_used + other.prefetches_used,
            prefetches_wasted: self.prefetches_wasted + other.prefetches_wasted,
            failures: self.failures + other.failures,
        }
    }
}

//! Bytes by pool and purpose: what a plan will take, and what a loaded model holds.
//!
//! Invariants: at most one entry for each pair of pool and purpose, ordered by them, none of zero bytes; sums
//! saturate, because the sizes may come from a file that lies.

use serde::{Deserialize, Serialize};

use super::pool::{PoolId, Pools};

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Weights that stay in memory.
    Weights,
    /// Slots of experts.
    Slots,
    /// Scratch cells for slices of experts that have no slot.
    Cells,
    /// The ring that dense weights stream through.
    Ring,
    /// Rows of tables that stream: the cache of them, and the pages that they are read into.
    Rows,
    /// KV cache and recurrent state.
    Kv,
    /// Compute buffers.
    Compute,
    /// The process itself: code, vocabulary, graphs, stacks.
    Process,
    /// The driver of a GPU: what it takes of the host's memory.
    Driver,
    /// A projector: its weights, its compute buffers, and the pictures and sounds that are on their way
    /// through it.
    Media,
    /// A draft model: its weights, its KV cache, its compute buffers.
    Draft,
}

/// Where a number of bytes comes from, from the surest to the least sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// It follows from the sizes that the file states, or was allocated so.
    Exact,
    /// llama.cpp said so when it built its graphs without memory.
    Measured,
    /// Arithmetic over the header.
    Estimated,
}

impl Basis {
    /// Name for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Measured => "measured",
            Self::Estimated => "estimated",
        }
    }
}

/// Bytes of one pool for one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// In which memory.
    pub pool: PoolId,
    /// What for.
    pub purpose: Purpose,
    /// How many.
    pub bytes: u64,
    /// How that is known.
    pub basis: Basis,
}

impl Entry {
    /// Weights that stay in memory, whose sizes the file states.
    pub(super) const fn weights(pool: PoolId, bytes: u64) -> Self {
        Self { pool, purpose: Purpose::Weights, bytes, basis: Basis::Exact }
    }
}

/// All bytes of a model, planned or held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Entry>", into = "Vec<Entry>")]
pub struct Ledger {
    entries: Vec<Entry>,
}

impl Ledger {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// This ledger and an entry of the host's memory.
    #[must_use]
    pub fn with_host(mut self, purpose: Purpose, bytes: u64, basis: Basis) -> Self {
        self.add(Entry { pool: PoolId::HOST, purpose, bytes, basis });
        self
    }

    /// This ledger and another entry.
    #[must_use]
    pub fn with(mut self, entry: Entry) -> Self {
        self.add(entry);
        self
    }

    /// Adds bytes; what is known of their sum is what is known of the less sure part.
    pub fn add(&mut self, entry: Entry) {
        if entry.bytes == 0 {
            return;
        }
        match self.position(entry.pool, entry.purpose) {
            Ok(at) => {
                let known = &mut self.entries[at];
                known.bytes = known.bytes.saturating_add(entry.bytes);
                known.basis = known.basis.max(entry.basis);
            }
            Err(at) => self.entries.insert(at, entry),
        }
    }

    /// Puts an entry in the place of what is known of its pool and purpose.
    pub fn set(&mut self, entry: Entry) {
        if let Ok(at) = self.position(entry.pool, entry.purpose) {
            self.entries.remove(at);
        }
        self.add(entry);
    }

    /// Adds all entries of another ledger.
    pub fn merge(&mut self, other: &Self) {
        other.entries.iter().for_each(|entry| self.add(*entry));
    }

    /// All entries, by pool and purpose.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of a pool for a purpose.
    #[must_use]
    pub fn bytes(&self, pool: PoolId, purpose: Purpose) -> u64 {
        self.position(pool, purpose).map_or(0, |at| self.entries[at].bytes)
    }

    /// Bytes for a purpose, in all pools.
    #[must_use]
    pub fn bytes_for(&self, purpose: Purpose) -> u64 {
        self.sum(|entry| entry.purpose == purpose)
    }

    /// Bytes of a pool, for all purposes.
    #[must_use]
    pub fn pool_bytes(&self, pool: PoolId) -> u64 {
        self.sum(|entry| entry.pool == pool)
    }

    /// How the bytes for a purpose are known; `None` where there are none.
    #[must_use]
    pub fn basis_of(&self, purpose: Purpose) -> Option<Basis> {
        let entries = self.entries.iter().filter(|entry| entry.purpose == purpose);
        entries.map(|entry| entry.basis).max()
    }

    /// Bytes of all pools for all purposes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.sum(|_| true)
    }

    /// The first pool that has more in it than it may, or is none of `pools`; `None` when all fits.
    #[must_use]
    pub fn exceeded(&self, pools: &Pools) -> Option<PoolId> {
        let exceeds = |entry: &&Entry| {
            pools.get(entry.pool).is_none_or(|pool| self.pool_bytes(entry.pool) > pool.budget_bytes)
        };
        self.entries.iter().find(exceeds).map(|entry| entry.pool)
    }

    fn position(&self, pool: PoolId, purpose: Purpose) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&(pool, purpose), |entry| (entry.pool, entry.purpose))
    }

    fn sum(&self, counts: impl Fn(&Entry) -> bool) -> u64 {
        let counted = self.entries.iter().filter(|entry| counts(entry));
        counted.fold(0, |sum, entry| sum.saturating_add(entry.bytes))
    }
}

impl From<Vec<Entry>> for Ledger {
    fn from(entries: Vec<Entry>) -> Self {
        entries.into_iter().fold(Self::new(), Self::with)
    }
}

impl From<Ledger> for Vec<Entry> {
    fn from(ledger: Ledger) -> Self {
        ledger.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> PoolId {
        Pools::host(0).with_device(0).devices().next().unwrap().0
    }

    fn entry(pool: PoolId, purpose: Purpose, bytes: u64) -> Entry {
        Entry { pool, purpose, bytes, basis: Basis::Exact }
    }

    #[test]
    fn sums_are_by_pool_by_purpose_and_all_in_all() {
        let ledger = Ledger::new()
            .with(entry(device(), Purpose::Kv, 5))
            .with_host(Purpose::Kv, 7, Basis::Measured)
            .with_host(Purpose::Slots, 100, Basis::Exact)
            .with_host(Purpose::Kv, 1, Basis::Estimated)
            .with_host(Purpose::Media, 0, Basis::Estimated);
        assert_eq!(ledger.entries().len(), 3, "one entry each, none of nothing: {ledger:?}");
        assert_eq!(ledger.bytes(PoolId::HOST, Purpose::Kv), 8);
        assert_eq!((ledger.bytes_for(Purpose::Kv), ledger.bytes_for(Purpose::Media)), (13, 0));
        assert_eq!((ledger.pool_bytes(PoolId::HOST), ledger.pool_bytes(device())), (108, 5));
        assert_eq!(ledger.total_bytes(), 113);
        assert!(ledger.entries().iter().any(|entry| entry.bytes == 8 && entry.basis == Basis::Estimated));
    }

    #[test]
    fn sums_of_hostile_sizes_saturate() {
        let ledger = Ledger::new()
            .with_host(Purpose::Kv, u64::MAX, Basis::Estimated)
            .with_host(Purpose::Kv, u64::MAX, Basis::Estimated)
            .with_host(Purpose::Compute, 1, Basis::Estimated);
        assert_eq!((ledger.bytes_for(Purpose::Kv), ledger.total_bytes()), (u64::MAX, u64::MAX));
        assert_eq!(ledger.exceeded(&Pools::host(u64::MAX - 1)), Some(PoolId::HOST));
    }

    #[test]
    fn a_pool_that_is_too_small_or_does_not_exist_is_named() {
        let ledger =
            Ledger::new().with_host(Purpose::Kv, 8, Basis::Exact).with(entry(device(), Purpose::Kv, 5));
        assert_eq!(ledger.exceeded(&Pools::host(8).with_device(5)), None);
        assert_eq!(ledger.exceeded(&Pools::host(7).with_device(5)), Some(PoolId::HOST));
        assert_eq!(ledger.exceeded(&Pools::host(8).with_device(4)), Some(device()));
        assert_eq!(ledger.exceeded(&Pools::host(8)), Some(device()));
    }

    #[test]
    fn what_is_set_replaces_what_was_there() {
        let mut ledger = Ledger::new().with_host(Purpose::Slots, 8, Basis::Estimated);
        ledger.set(entry(PoolId::HOST, Purpose::Slots, 3));
        assert_eq!(ledger.entries(), [entry(PoolId::HOST, Purpose::Slots, 3)]);
        ledger.set(entry(PoolId::HOST, Purpose::Slots, 0));
        assert_eq!(ledger, Ledger::new());
    }

    #[test]
    fn ledgers_cross_a_process_border_in_any_order() {
        let ledger = Ledger::new().with_host(Purpose::Kv, 7, Basis::Measured).with(entry(
            device(),
            Purpose::Weights,
            u64::MAX,
        ));
        let mut entries: Vec<Entry> = ledger.clone().into();
        entries.reverse();
        let text = serde_json::to_string(&entries).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
    }
}

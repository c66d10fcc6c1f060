//! A larger context for a model that is loaded: how large, given what memory there is.
//!
//! The same arithmetic as for a new plan, but around a model that already holds memory: what a context needs
//! is asked of the same source, and compared with what is held. Only KV cache and compute buffers change.

use super::homes::Homes;
use super::ledger::{Ledger, Purpose};
use super::pool::{Pool, PoolId, Pools};
use super::request::ContextShape;

/// A context grows to a power of two of tokens, at least this many: requests that differ a little make it
/// grow once.
const SMALLEST: u32 = 1024;

/// Of the memory that is free, the share that a larger KV cache may take, where it is only estimated; the
/// rest is for the compute buffers that grow with it, and for the sequences that are kept meanwhile.
const SHARE: f64 = 0.8;

/// llama.cpp's contexts are multiples of this many tokens.
const STEP: u32 = 256;

/// How often a smaller context is tried where there is too little memory.
const ATTEMPTS: usize = 4;

/// What a context is now, for estimates of what it could be.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ContextFacts {
    /// Tokens of each sequence.
    pub tokens: u32,
    /// Tokens of all together.
    pub cells: u32,
    /// Running sequences.
    pub sequences: u32,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Tokens of context in training.
    pub trained: u32,
    /// Bytes of slots that a larger context may have.
    pub spare_bytes: u64,
}

impl ContextFacts {
    /// Most tokens of context that each sequence can get while so much memory is free, about.
    #[must_use]
    pub fn most(&self, free_bytes: u64) -> u32 {
        let free_bytes = free_bytes.saturating_add(self.spare_bytes);
        let per_token = self.kv_bytes as f64 / f64::from(self.cells.max(1));
        let more = free_bytes as f64 * SHARE / per_token / f64::from(self.sequences.max(1));
        // Casts saturate: a budget without end gives the trained length, and so does a model without a KV
        // cache.
        let more = if per_token > 0.0 { more as u32 } else { 0 };
        let most = if self.trained == 0 { u32::MAX } else { self.trained };
        self.tokens.saturating_add(more).min(most.max(self.tokens))
    }

    /// The context to have when `wanted` tokens are asked for while so much memory is free.
    #[must_use]
    pub fn target(&self, wanted: u32, free_bytes: u64) -> u32 {
        let most = self.most(free_bytes);
        wanted.checked_next_power_of_two().unwrap_or(most).max(SMALLEST).min(most)
    }
}

/// A larger context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Tokens of each sequence.
    pub tokens: u32,
    /// Bytes of the host's memory that it takes beyond the present one.
    pub more_bytes: u64,
}

/// A context that may grow.
pub struct Growing<'a, N> {
    /// What it is now.
    pub context: ContextShape,
    /// Where the model's layers are at home.
    pub homes: &'a Homes,
    /// How much of each memory may be used.
    pub pools: &'a Pools,
    /// What the model holds.
    pub held: &'a Ledger,
    /// What a context needs, as for [`super::settle()`]; `None` where that cannot be found out.
    pub needs: N,
}

impl<N: FnMut(&ContextShape, &Homes) -> Option<Ledger>> Growing<'_, N> {
    /// A context of so many tokens; `None` where it cannot be found out what that takes, or takes more of a
    /// device than may be used.
    pub fn to(&mut self, tokens: u32) -> Option<Growth> {
        let needs = (self.needs)(&ContextShape { context_tokens: tokens, ..self.context }, self.homes)?;
        let more = |pool| changing_bytes(&needs, pool).saturating_sub(changing_bytes(self.held, pool));
        let fits = |(id, pool): (PoolId, &Pool)| {
            self.held.pool_bytes(id).saturating_add(more(id)) <= pool.budget_bytes
        };
        self.pools.devices().all(fits).then(|| Growth { tokens, more_bytes: more(PoolId::HOST) })
    }

    /// The largest context up to `growth` that takes no more than `room` bytes beyond the present one, about.
    pub fn within(&mut self, mut growth: Growth, room: u64) -> Option<Growth> {
        let now = self.context.context_tokens;
        for _ in 0..ATTEMPTS {
            if growth.more_bytes <= room {
                return Some(growth);
            }
            let share = room as f64 / growth.more_bytes as f64;
            let more = f64::from(growth.tokens.saturating_sub(now)) * share;
            let tokens = now.saturating_add(more as u32) / STEP * STEP;
            if tokens <= now {
                return None;
            }
            growth = self.to(tokens)?;
        }
        None
    }
}

/// What of a pool changes with the context.
fn changing_bytes(ledger: &Ledger, pool: PoolId) -> u64 {
    ledger.bytes(pool, Purpose::Kv).saturating_add(ledger.bytes(pool, Purpose::Compute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Basis;

    const FACTS: ContextFacts = ContextFacts {
        tokens: 1000,
        cells: 2000,
        sequences: 2,
        kv_bytes: 20_000,
        trained: 5000,
        spare_bytes: 0,
    };

    #[test]
    fn contexts_grow_in_powers_of_two_up_to_what_there_is() {
        let facts = ContextFacts { tokens: 10, trained: 9000, ..FACTS };
        let target = |wanted| facts.target(wanted, u64::MAX);
        assert_eq!([10, 1025, 8193, 20_000].map(target), [1024, 2048, 9000, 9000]);
        assert_eq!(ContextFacts { trained: 700, ..facts }.target(u32::MAX, u64::MAX), 700);
    }

    #[test]
    fn what_is_free_now_bounds_the_context() {
        // Ten bytes a token, two sequences, four fifths of what is free.
        assert_eq!(FACTS.most(25_000), 2000);
        assert_eq!(FACTS.most(0), 1000);
        assert_eq!(ContextFacts { spare_bytes: 15_000, ..FACTS }.most(10_000), 2000);
        assert_eq!(FACTS.most(u64::MAX), 5000);
        assert_eq!(ContextFacts { trained: 500, ..FACTS }.most(u64::MAX), 1000, "it never shrinks");
    }

    #[test]
    fn a_context_grows_as_far_as_its_room_goes() {
        let held = Ledger::new().with_host(Purpose::Kv, 1000 * 10, Basis::Measured).with_host(
            Purpose::Weights,
            1 << 30,
            Basis::Exact,
        );
        let needs = |context: &ContextShape, _: &Homes| {
            let kv = u64::from(context.context_tokens) * 10;
            Some(Ledger::new().with_host(Purpose::Kv, kv, Basis::Measured))
        };
        let context = ContextShape { context_tokens: 1000, ..ContextShape::default() };
        let homes = Homes::default();
        let mut growing = Growing { context, homes: &homes, pools: &Pools::host(0), held: &held, needs };
        let all = growing.to(8192).unwrap();
        assert_eq!(all.more_bytes, 71_920, "weights are no part of it");
        assert_eq!(growing.within(all, 71_920), Some(all));
        let less = growing.within(all, 30_000).unwrap();
        assert!(
            less.more_bytes <= 30_000 && less.tokens.is_multiple_of(256) && less.tokens > 3500,
            "{less:?}"
        );
        assert_eq!(growing.within(all, 100), None, "not even one step");
    }
}

//! The names of things in an expert cache: which expert (the model's [`ExpertKey`]), which slot, which token.
//!
//! Owns nothing and decides nothing; every other file of the cache, the simulator and the engine speaks in
//! these.

use std::fmt;

use crate::model::ExpertKey;

/// Most tokens of a step that counts as decoding: their experts are looked up and kept like those of one
/// token. More is a prefill ubatch.
pub const DECODE_TOKENS: u32 = 16;

impl ExpertKey {
    /// The expert `expert` of layer `layer`.
    pub const fn new(layer: u32, expert: u32) -> Self {
        Self { layer, expert }
    }
}

impl fmt::Display for ExpertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {} expert {}", self.layer, self.expert)
    }
}

/// A slot of a pool, `0..slots`. Its bytes start at `slot * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u32);

impl SlotId {
    /// The slot as an index into per-slot tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How many tokens have been computed: the only time a policy knows. It never goes back.
///
/// All layers of one step share one value. A decode step advances it by 1, whatever the number of parallel
/// sequences (it counts chances to be used, and the weights of a [`super::Demand`] count the sequences); a
/// prefill ubatch of `n` tokens advances it by `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenClock(pub u64);

impl TokenClock {
    /// Tokens from `earlier` to `self`; 0 where `earlier` is not earlier.
    pub const fn since(self, earlier: TokenClock) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The clock `tokens` later.
    #[must_use]
    pub const fn plus(self, tokens: u64) -> Self {
        Self(self.0.saturating_add(tokens))
    }

    /// The clock of a step that computes `tokens` together.
    #[must_use]
    pub const fn after_step(self, tokens: u32) -> Self {
        self.plus(if tokens <= DECODE_TOKENS { 1 } else { tokens as u64 })
    }
}

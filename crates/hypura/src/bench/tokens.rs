//! The tokens that arms compute: random, and the same for the same seed.

use hypura_core::random::SplitMix64;
use hypura_engine::Token;

/// Random numbers and tokens.
#[derive(Clone, Debug)]
pub(super) struct RandomTokens(SplitMix64);

impl RandomTokens {
    pub const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// A number in `0..most`.
    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.0.below(most as u64)).unwrap_or(0)
    }

    /// A token of a vocabulary of this size.
    pub fn token(&mut self, vocab: usize) -> Token {
        Token::try_from(self.below(vocab)).unwrap_or(0)
    }
}

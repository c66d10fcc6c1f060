//! The deterministic randomness of synthetic models.
//!
//! Every byte of a synthetic tensor is a function of a 64-bit key and an index, so any byte range can be made
//! by any thread in any order. Nothing here is for security.

pub(super) use crate::random::{at, key, mix};

use crate::random::SplitMix64;

/// A number in [0, 1) of the upper 24 bits of `bits`: exact in an `f32`.
pub(super) fn unit(bits: u64) -> f32 {
    (bits >> 40) as f32 * (1.0 / 16_777_216.0)
}

/// A sequential reader of one stream, for the small tables that are made once.
pub(super) struct Stream(SplitMix64);

impl Stream {
    /// The stream of `key` from its beginning.
    pub(super) fn new(key: u64) -> Self {
        Self(SplitMix64::new(key))
    }

    /// The next 64 random bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`; the bias for the small bounds used here is below 2^-32.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// True with the given probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        unit(self.next()) < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_numbers_cover_their_range() {
        let mut stream = Stream::new(7);
        let mut seen = [false; 16];
        for _ in 0..1000 {
            seen[stream.below(16) as usize] = true;
        }
        assert_eq!(seen, [true; 16]);
    }
}

//! The deterministic randomness of synthetic models.
//!
//! Every byte of a synthetic tensor is a function of a 64-bit key and an index, so any byte range can be made
//! by any thread in any order. Nothing here is for security.

/// The increment of SplitMix64: 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
///
/// It is a bijection of the 64-bit integers; [`at`] relies on that.
pub(super) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The value of the stream `key` at `index`. For one key, different indices give different values.
pub(super) const fn at(key: u64, index: u64) -> u64 {
    mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// A key made of a seed and a text, such as a tensor's name.
pub(super) fn key(seed: u64, text: &str) -> u64 {
    text.bytes().fold(mix(seed ^ GOLDEN), |hash, byte| mix(hash ^ u64::from(byte)))
}

/// A number in [0, 1) of the upper 24 bits of `bits`: exact in an `f32`.
pub(super) fn unit(bits: u64) -> f32 {
    (bits >> 40) as f32 * (1.0 / 16_777_216.0)
}

/// A sequential reader of one stream, for the small tables that are made once.
pub(super) struct Stream {
    key: u64,
    index: u64,
}

impl Stream {
    /// The stream of `key` from its beginning.
    pub(super) fn new(key: u64) -> Self {
        Self { key, index: 0 }
    }

    /// The next 64 random bits.
    pub(super) fn next(&mut self) -> u64 {
        let value = at(self.key, self.index);
        self.index = self.index.wrapping_add(1);
        value
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
    fn mix_is_splitmix64() {
        // The first outputs of SplitMix64 seeded with 1234567, as published with the reference implementation.
        assert_eq!(at(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(at(1_234_567, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn keys_depend_on_seed_and_text() {
        assert_ne!(key(1, "a"), key(2, "a"));
        assert_ne!(key(1, "ab"), key(1, "ba"));
    }

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

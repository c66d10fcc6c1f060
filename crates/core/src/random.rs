//! Pseudorandom numbers that are the same for the same seed on every machine. Nothing here is for security.
//!
//! SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): any
//! element of a sequence can be had without those before it.

/// The increment: 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function, a bijection of the 64-bit integers; [`at`] relies on that.
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Element `index`, from 0, of the sequence of `seed`. For one seed, different indices give different values.
#[must_use]
pub const fn at(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// A key made of a seed and a text, such as a tensor's name.
#[must_use]
pub fn key(seed: u64, text: &str) -> u64 {
    text.bytes().fold(mix(seed ^ GOLDEN), |hash, byte| mix(hash ^ u64::from(byte)))
}

/// A sequence read from its beginning.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    seed: u64,
    index: u64,
}

impl SplitMix64 {
    /// The sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, index: 0 }
    }

    /// The next 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        let value = at(self.seed, self.index);
        self.index = self.index.wrapping_add(1);
        value
    }

    /// A number in `0..most`; 0 where `most` is. The bias is below `most` / 2^64.
    pub fn below(&mut self, most: u64) -> u64 {
        self.next_u64() % most.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        // The first outputs for seed 1234567, as published with the reference implementation (Vigna,
        // splitmix64.c).
        let mut random = SplitMix64::new(1_234_567);
        for (index, expected) in
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
                .into_iter()
                .enumerate()
        {
            assert_eq!((random.next_u64(), at(1_234_567, index as u64)), (expected, expected));
        }
    }

    #[test]
    fn keys_depend_on_seed_and_text() {
        assert_ne!(key(1, "a"), key(2, "a"));
        assert_ne!(key(1, "ab"), key(1, "ba"));
    }

    #[test]
    fn bounded_numbers_cover_their_range() {
        let mut random = SplitMix64::new(7);
        let mut seen = [false; 16];
        for _ in 0..1000 {
            seen[random.below(16) as usize] = true;
        }
        assert_eq!((seen, random.below(0)), ([true; 16], 0));
    }
}

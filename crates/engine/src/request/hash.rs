//! A hash over logits, for exactness checks: equal hashes mean equal bits.

use serde::{Deserialize, Serialize};
use std::fmt;

/// FNV-1a over the bits of every logit, in order (Fowler, Noll, Vo; 64-bit constants of the published
/// algorithm, applied to 32-bit words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogitsHash {
    state: u64,
    positions: u64,
}

impl Default for LogitsHash {
    fn default() -> Self {
        Self { state: 0xcbf2_9ce4_8422_2325, positions: 0 }
    }
}

impl LogitsHash {
    /// Adds the logits of one position.
    pub fn add(&mut self, logits: &[f32]) {
        self.positions += 1;
        for logit in logits {
            self.state = (self.state ^ u64::from(logit.to_bits())).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Display for LogitsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.state, self.positions)
    }
}

#[cfg(test)]
mod tests {
    use super::LogitsHash;

    #[test]
    fn every_bit_and_the_order_count() {
        let hash = |rows: &[&[f32]]| {
            let mut hash = LogitsHash::default();
            rows.iter().for_each(|row| hash.add(row));
            hash.to_string()
        };
        let base = hash(&[&[1.0, 2.0]]);
        assert_eq!(base, hash(&[&[1.0, 2.0]]));
        assert_ne!(base, hash(&[&[2.0, 1.0]]));
        assert_ne!(base, hash(&[&[1.0, f32::from_bits(2.0f32.to_bits() + 1)]]));
        assert_ne!(hash(&[&[0.0]]), hash(&[&[-0.0]]));
        assert_ne!(base, hash(&[&[1.0], &[2.0]]));
    }
}

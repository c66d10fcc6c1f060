//! Tables of n-grams: each token is hashed with those before it, by several heads, and each head has rows of
//! its own.

use super::content::largest_prime;
use super::dims::NGram;
use super::keys::Keys;
use super::list::{Init, List};
use super::quant::TensorClass;

/// Rows of a table are a multiple of this.
const PADDING: u64 = 64;

impl NGram {
    /// The table of a model that has been cut from `all` layers to `layers`: as much smaller as the rest is,
    /// unless its size was asked for.
    pub fn cut(self, layers: u32, all: u32) -> Self {
        if !self.is_cut {
            return self;
        }
        let head_rows = (self.head_rows * u64::from(layers.min(all)) / u64::from(all.max(1))).max(64);
        Self { head_rows, ..self }
    }

    /// Heads of one module.
    pub fn heads(&self) -> u64 {
        u64::from((self.longest - 1) * self.heads_per_length)
    }

    /// Rows of each head of all modules: primes, so that hashes spread, and no two alike.
    fn sizes(&self) -> Vec<u64> {
        let heads = self.heads() * u64::from(self.modules);
        let mut below = self.head_rows;
        let prime = |_| {
            let prime = largest_prime(below).unwrap_or(2);
            below = prime - 1;
            prime
        };
        (0..heads).map(prime).collect()
    }

    /// Rows of the table.
    pub fn rows(&self) -> u64 {
        self.sizes().iter().sum::<u64>().next_multiple_of(PADDING)
    }
}

/// The table itself, of a model of `layers` layers.
pub(super) fn list(list: &mut List<'_>, table: NGram, layers: u32) {
    let shape = &[table.head_len, table.cut(layers, list.dims.layers).rows()];
    list.push("per_layer_token_embd.weight", shape, TensorClass::Embedding, Init::Weight { std: 1.0 });
}

/// Keys of the table, which `layers` read.
pub(super) fn describe(keys: &mut Keys<'_>, table: NGram, layers: &[u32]) {
    let sizes = table.sizes();
    let offsets = sizes.iter().scan(0, |sum, size| Some(std::mem::replace(sum, *sum + size)));
    // Odd, and large enough that products of tokens fill 64 bits.
    let multiplier = |at: u64| (0x9E37_79B9_7F4A_7C15_u64.rotate_left(at as u32 * 7) >> 16) | 1;
    let multipliers = (0..u64::from(table.longest * table.modules)).map(multiplier);
    keys.set("ple.layers", layers.to_vec());
    keys.set("ple.ngram_size", table.longest);
    keys.set("ple.heads_per_ngram", table.heads_per_length);
    keys.set("embedding_length_per_layer_input", table.head_len as u32);
    keys.set("ple.layer_multipliers", multipliers.collect::<Vec<u64>>());
    keys.set("ple.head_offsets", offsets.collect::<Vec<u64>>());
    keys.set("ple.head_vocab_sizes", sizes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_rows_of_their_own() {
        let table =
            NGram { longest: 3, heads_per_length: 2, head_len: 64, head_rows: 100, modules: 2, is_cut: true };
        assert_eq!(table.sizes(), [97, 89, 83, 79, 73, 71, 67, 61]);
        assert_eq!(table.rows(), 640);
        assert!(table.cut(1, 2).rows() < table.rows());
    }
}

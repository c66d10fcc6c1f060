//! The bytes of one tensor as a function of position.
//!
//! Owns the choice of generator for each tensor and, under `--unique`, the period after which its bytes
//! repeat.

use super::blocks::{Pattern, fill_units};
use super::list::{Init, TensorSpec};
use super::rng;
use crate::gguf::GgmlType;

/// Pages that copies are made of; also the alignment of tensors where bytes repeat.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Standard deviation of a router's logits before some experts are made hotter than others.
const ROUTER_LOGIT_STD: f32 = 1.5;

/// How far router rows are from their mean length. Longer rows reach the top k more often: the hottest of 128
/// experts is used about three times as often as the mean, the coldest hardly ever.
const ROUTER_SKEW: f32 = 0.5;

/// What makes a tensor's bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// Blocks of a pattern; index into [`Patterns`].
    Blocks { pattern: usize, key: u64 },
    /// Part of a repeating stretch of blocks that all tensors of one pattern share.
    Repeated { pattern: usize, period: u64, phase: u64 },
    /// F32 within `spread` of `mean`.
    Around { key: u64, mean: f32, spread: f32 },
    /// F32 router rows.
    Router { key: u64, row: u64 },
    /// These bytes.
    Fixed(Vec<u8>),
}

/// The patterns of a plan: one for each type and standard deviation in it.
#[derive(Default)]
pub(super) struct Patterns {
    seed: u64,
    known: Vec<(GgmlType, u32, Pattern)>,
    /// The largest tensor of each pattern, which bounds its period.
    largest: Vec<u64>,
}

impl Patterns {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// What makes the bytes of a tensor of `bytes` bytes, nothing repeating.
    pub(super) fn content(&mut self, spec: &TensorSpec, ty: GgmlType, bytes: u64) -> Content {
        let key = rng::key(self.seed, &spec.name);
        match spec.init {
            Init::Weight { std } => match self.intern(ty, std, bytes) {
                Some(pattern) => Content::Blocks { pattern, key },
                None => Content::Around { key, mean: 0.0, spread: std * 3.0_f32.sqrt() },
            },
            Init::Around { mean, spread } => Content::Around { key, mean, spread },
            Init::Router { row } => Content::Router { key, row },
            Init::Fixed(ref values) => Content::Fixed(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        }
    }

    fn intern(&mut self, ty: GgmlType, std: f32, bytes: u64) -> Option<usize> {
        let found = self.known.iter().position(|(known, bits, _)| (*known, *bits) == (ty, std.to_bits()));
        let index = match found {
            Some(index) => index,
            None => {
                self.known.push((ty, std.to_bits(), Pattern::new(ty, std, self.seed)?));
                self.largest.push(0);
                self.known.len() - 1
            }
        };
        if let Some(largest) = self.largest.get_mut(index) {
            *largest = bytes.max(*largest);
        }
        Some(index)
    }

    /// Turns blocks into a repeating stretch of at most `unique_bytes`, if the pattern's tensors are large
    /// enough to have one. Call it when all tensors are known.
    pub(super) fn repeat(&self, content: Content, unique_bytes: u64) -> Content {
        let Content::Blocks { pattern, key } = content else { return content };
        let Some(((_, _, made), &largest)) = self.known.get(pattern).zip(self.largest.get(pattern)) else {
            return content;
        };
        let step = made.unit_bytes() * (PAGE_BYTES / gcd(made.unit_bytes(), PAGE_BYTES));
        // A prime number of steps: experts of equal size then start at different places of the stretch.
        let Some(steps) = largest_prime(unique_bytes.min(largest) / step) else { return content };
        Content::Repeated { pattern, period: steps * step, phase: key % steps * step }
    }

    /// Writes the bytes from `offset` on.
    pub(super) fn fill(&self, content: &Content, offset: u64, out: &mut [u8]) {
        match *content {
            Content::Blocks { pattern, key } => self.fill_blocks(pattern, key, offset, out),
            Content::Repeated { pattern, period, phase } => {
                let mut rest = out;
                let mut at = (offset % period + phase) % period;
                while !rest.is_empty() {
                    let taken = usize::try_from(period - at).unwrap_or(usize::MAX).min(rest.len());
                    let (now, later) = rest.split_at_mut(taken);
                    self.fill_blocks(pattern, rng::mix(self.seed ^ pattern as u64), at, now);
                    rest = later;
                    at = 0;
                }
            }
            Content::Around { key, mean, spread } => fill_units::<4>(offset, out, |index, number| {
                *number = (mean + symmetric(key, index) * spread).to_le_bytes();
            }),
            Content::Router { key, row } => {
                let spread = ROUTER_LOGIT_STD * (3.0 / row as f32).sqrt();
                fill_units::<4>(offset, out, |index, number| {
                    let hotness = 1.0 + symmetric(!key, index / row) * ROUTER_SKEW;
                    *number = (symmetric(key, index) * spread * hotness).to_le_bytes();
                });
            }
            Content::Fixed(ref bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let source = bytes.get(from..).unwrap_or_default();
                out.iter_mut().zip(source).for_each(|(out, byte)| *out = *byte);
            }
        }
    }

    fn fill_blocks(&self, pattern: usize, key: u64, offset: u64, out: &mut [u8]) {
        if let Some((_, _, pattern)) = self.known.get(pattern) {
            pattern.fill(key, offset, out);
        }
    }
}

/// A number uniform over -1..1.
fn symmetric(key: u64, index: u64) -> f32 {
    rng::unit(rng::at(key, index)) * 2.0 - 1.0
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The largest prime up to `limit`; `None` below 2.
pub(super) fn largest_prime(limit: u64) -> Option<u64> {
    let prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..=limit).rev().find(prime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes() {
        assert_eq!(
            [0, 1, 2, 4, 28, 100].map(largest_prime),
            [None, None, Some(2), Some(3), Some(23), Some(97)]
        );
    }
}

//! A larger context for a model that is loaded: only llama.cpp's context is made anew, and what its sequences had in memory
//! is put back.

use super::batcher::{Batcher, index};
use crate::load::Planned;

/// A context grows to a power of two of tokens, at least this many: requests that differ a little make it grow once.
const SMALLEST: usize = 1024;

/// Of the memory that the plan leaves, the share that a larger KV cache may take; the rest is for the compute buffers that grow
/// with it, and for the sequences that are kept meanwhile.
const SHARE: f64 = 0.8;

/// Most tokens of context that each sequence can get within the plan. `kv_bytes` is what the cache of `cells` tokens takes.
pub(crate) fn most_context(planned: &Planned, kv_bytes: u64, cells: u32) -> usize {
    let settings = &planned.settings;
    let now = settings.context as usize;
    let trained = usize::try_from(planned.source.shape.context_train).unwrap_or(usize::MAX);
    let per_token = kv_bytes as f64 / f64::from(cells.max(1));
    let slack = planned.plan.budget_bytes.saturating_sub(planned.plan.total_bytes()) as f64 * SHARE;
    let sequences = f64::from(settings.sequences.max(1));
    let more = if per_token > 0.0 { slack / per_token / sequences } else { 0.0 };
    // Casts saturate; a budget without end gives the trained length.
    now.saturating_add(more as usize).min(trained.max(now))
}

/// The context to have when `wanted` tokens are asked for.
pub(crate) fn bucket(wanted: usize, most: usize) -> usize {
    wanted.checked_next_power_of_two().unwrap_or(most).max(SMALLEST).min(most)
}

impl Batcher {
    /// Gives every sequence a context of at least `wanted` tokens, as far as the plan has room. When llama.cpp refuses, all
    /// stays as it is. Sequences whose state cannot be put back are computed again.
    pub fn grow(&mut self, wanted: usize) {
        let most = self.most_context();
        if wanted <= self.context() || most <= self.context() {
            return;
        }
        let tokens = bucket(wanted, most);
        let rows = self.memory().rows().len();
        let states: Vec<Vec<u8>> = (0..rows).map(|row| self.context_mut().save(index(row))).collect();
        let sequences = self.loaded().planned.settings.sequences.max(1);
        let cells = u32::try_from(tokens).unwrap_or(u32::MAX).saturating_mul(sequences);
        let grown = self.context_mut().rebuild(cells);
        for (row, state) in states.iter().enumerate() {
            let length = self.memory().row(row).cached.len();
            let back = length > 0 && self.context_mut().restore(index(row), state) && self.holds(row, length);
            if !back {
                self.empty(row);
            }
        }
        self.rebuilt(grown.is_ok().then_some(tokens));
    }
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn contexts_grow_in_powers_of_two_up_to_what_there_is() {
        assert_eq!(bucket(10, 9000), 1024);
        assert_eq!(bucket(1025, 9000), 2048);
        assert_eq!(bucket(8193, 9000), 9000);
        assert_eq!(bucket(20_000, 9000), 9000);
        assert_eq!(bucket(usize::MAX, 700), 700);
    }
}

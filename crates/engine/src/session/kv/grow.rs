//! A larger context for a model that is loaded: only llama.cpp's context is made anew, and what its sequences had in memory
//! is put back.
//!
//! Nothing is taken that was not promised first: memory is shared with other models, which may have come since this one
//! was planned. What a larger context takes is measured, not estimated, and the states that are kept meanwhile count too. A
//! model that streams experts has filled its budget with slots: what is not free comes from them.

use super::share::{KvRows, index};
use crate::budget::Reserved;
use crate::load::{self, Planned};

/// A context grows to a power of two of tokens, at least this many: requests that differ a little make it grow once.
const SMALLEST: usize = 1024;

/// Of the memory that is free, the share that a larger KV cache may take, where it is only estimated; the rest is for the
/// compute buffers that grow with it, and for the sequences that are kept meanwhile.
const SHARE: f64 = 0.8;

/// llama.cpp's contexts are multiples of this many tokens.
const STEP: usize = 256;

/// How often a smaller context is tried where there is too little memory.
const ATTEMPTS: usize = 4;

/// What a context is now, for estimates of what it could be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ContextFacts {
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
    pub fn most(&self, free_bytes: u64) -> u32 {
        let free_bytes = free_bytes.saturating_add(self.spare_bytes);
        let per_token = self.kv_bytes as f64 / f64::from(self.cells.max(1));
        let more = free_bytes as f64 * SHARE / per_token / f64::from(self.sequences.max(1));
        // Casts saturate: a budget without end gives the trained length, and so does a model without a KV cache.
        let more = if per_token > 0.0 { more as u32 } else { 0 };
        let most = if self.trained == 0 { u32::MAX } else { self.trained };
        self.tokens.saturating_add(more).min(most.max(self.tokens))
    }
}

/// The context to have when `wanted` tokens are asked for.
pub(crate) fn bucket(wanted: usize, most: usize) -> usize {
    wanted.checked_next_power_of_two().unwrap_or(most).max(SMALLEST).min(most)
}

/// Bytes that this plan's weights, slots, cells and process take, whatever the context.
fn fixed_bytes(planned: &Planned) -> u64 {
    let plan = &planned.plan;
    let fixed = plan.fixed.process_bytes + plan.fixed.media_bytes;
    plan.resident_bytes + plan.slot_bytes + plan.buffer_bytes() + fixed
}

impl KvRows {
    /// Bytes that the model holds now, all in all.
    pub fn held_bytes(&self) -> u64 {
        let memory = &self.loaded.memory;
        fixed_bytes(&self.loaded.planned) + memory.context_bytes + memory.compute_bytes
    }

    /// Bytes that the model may still take.
    fn free_bytes(&self) -> u64 {
        match &self.shared_memory {
            Some(memory) => memory.free_bytes(),
            None => self.loaded.planned.plan.budget_bytes.saturating_sub(self.held_bytes()),
        }
    }

    /// What the context is now.
    pub fn context_facts(&self) -> ContextFacts {
        let loaded = &self.loaded;
        ContextFacts {
            tokens: u32::try_from(self.context_tokens()).unwrap_or(u32::MAX),
            cells: loaded.context.capacity(),
            sequences: loaded.planned.settings.sequences,
            kv_bytes: loaded.memory.context_bytes,
            trained: u32::try_from(loaded.planned.source.shape.context_train).unwrap_or(u32::MAX),
            spare_bytes: loaded.context.spare_bytes(),
        }
    }

    /// Gives every sequence a context of at least `wanted` tokens, as far as memory is free. When llama.cpp refuses, all stays as
    /// it is. Sequences whose state cannot be kept or put back are computed again. What was promised for it is to be dropped
    /// when [`Self::held_bytes`] was told to whoever counts.
    pub fn grow(&mut self, wanted: usize) -> Option<Reserved> {
        let now = self.context_tokens();
        let tokens = bucket(wanted, self.context_facts().most(self.free_bytes()) as usize);
        if wanted <= now || tokens <= now {
            return None;
        }
        let rows = self.rows.all().len();
        let states: u64 = (0..rows).map(|row| self.loaded.context.state_bytes(index(row))).sum();
        let more = self.more_bytes(tokens)?;
        let free = self.free_bytes();
        let spare = self.loaded.context.spare_bytes();
        let all = free.saturating_add(spare);
        // Rather a context that is just large enough than one that its own conversation is not kept for.
        let beside_states = self.fitting(tokens, more, all.saturating_sub(states));
        let (tokens, more) = beside_states
            .filter(|(tokens, _)| *tokens >= wanted)
            .or_else(|| self.fitting(tokens, more, all))?;
        let wanted_bytes = more.saturating_add(states);
        // Experts are read again sooner than a conversation is computed again.
        let given = self.give_back(wanted_bytes.saturating_sub(free));
        // Where memory is shared, nobody else knows yet of what was given up.
        let own = if self.shared_memory.is_some() { given } else { 0 };
        let asked = wanted_bytes.saturating_sub(own);
        let reserved = Reserved::new(self.shared_memory.as_ref(), self.free_bytes(), asked);
        let room = reserved.bytes.saturating_add(own);
        let (tokens, more) = self.fitting(tokens, more, room)?;
        let kept = self.save_rows(room - more);
        let sequences = self.loaded.planned.settings.sequences.max(1);
        let cells = u32::try_from(tokens).unwrap_or(u32::MAX).saturating_mul(sequences);
        let grown = self.loaded.context.rebuild(cells);
        self.put_back(&kept);
        self.rebuilt(grown.is_ok().then_some(tokens));
        Some(reserved)
    }

    /// Bytes that a context of so many tokens takes beyond the present one; `None` when that cannot be found out.
    fn more_bytes(&self, tokens: usize) -> Option<u64> {
        let loaded = &self.loaded;
        let fixed = load::measure_context(&loaded.planned, u32::try_from(tokens).ok()?).ok()?;
        let now = loaded.memory.context_bytes + loaded.memory.compute_bytes;
        Some((fixed.kv_bytes + fixed.compute_bytes).saturating_sub(now))
    }

    /// The largest context of at most `tokens` that takes no more than `room` bytes beyond the present one, about, and what it
    /// takes.
    fn fitting(&self, mut tokens: usize, mut more: u64, room: u64) -> Option<(usize, u64)> {
        let now = self.context_tokens();
        for _ in 0..ATTEMPTS {
            if more <= room {
                return Some((tokens, more));
            }
            let share = room as f64 / more as f64;
            tokens = (now + ((tokens - now) as f64 * share) as usize) / STEP * STEP;
            if tokens <= now {
                return None;
            }
            more = self.more_bytes(tokens)?;
        }
        None
    }

    /// The states of as many rows as `room` bytes hold: the running ones first, then those used last.
    fn save_rows(&mut self, mut room: u64) -> Vec<(usize, Vec<u8>)> {
        let mut idle = self.rows.idle_rows();
        idle.reverse();
        let rows = 0..self.rows.all().len();
        let mut order: Vec<usize> = rows.filter(|row| !idle.contains(row)).collect();
        order.extend(idle);
        let mut kept = Vec::new();
        for row in order {
            let bytes = self.loaded.context.state_bytes(index(row));
            if bytes > 0 && bytes <= room {
                room -= bytes;
                kept.push((row, self.loaded.context.save(index(row))));
            }
        }
        kept
    }

    fn put_back(&mut self, kept: &[(usize, Vec<u8>)]) {
        for row in 0..self.rows.all().len() {
            if !kept.iter().any(|(kept, _)| *kept == row) {
                self.empty(row);
            }
        }
        for (row, state) in kept {
            let tokens = self.rows.row(*row).cached.clone();
            self.restore(*row, &tokens, state);
        }
    }

    /// The context was made anew, with this many tokens for each sequence if it grew.
    fn rebuilt(&mut self, context: Option<usize>) {
        if let Some(context) = context {
            self.loaded.planned.settings.context = u32::try_from(context).unwrap_or(u32::MAX);
        }
        self.loaded.memory = self.loaded.context.memory_use();
    }

    /// Has the cache of experts give up at least so many bytes, as far as it can; returns how many.
    fn give_back(&mut self, bytes: u64) -> u64 {
        if bytes == 0 {
            return 0;
        }
        let freed = self.loaded.context.give_back(bytes);
        let plan = &mut self.loaded.planned.plan;
        plan.slot_bytes = plan.slot_bytes.saturating_sub(freed);
        plan.slots = self.loaded.context.slots();
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::{ContextFacts, bucket};

    #[test]
    fn contexts_grow_in_powers_of_two_up_to_what_there_is() {
        assert_eq!(bucket(10, 9000), 1024);
        assert_eq!(bucket(1025, 9000), 2048);
        assert_eq!(bucket(8193, 9000), 9000);
        assert_eq!(bucket(20_000, 9000), 9000);
        assert_eq!(bucket(usize::MAX, 700), 700);
    }

    #[test]
    fn what_is_free_now_bounds_the_context() {
        let facts = ContextFacts {
            tokens: 1000,
            cells: 2000,
            sequences: 2,
            kv_bytes: 20_000,
            trained: 5000,
            spare_bytes: 0,
        };
        // Ten bytes a token, two sequences, four fifths of what is free.
        assert_eq!(facts.most(25_000), 2000);
        assert_eq!(facts.most(0), 1000);
        assert_eq!(ContextFacts { spare_bytes: 15_000, ..facts }.most(10_000), 2000);
        assert_eq!(facts.most(u64::MAX), 5000);
        assert_eq!(ContextFacts { trained: 500, ..facts }.most(u64::MAX), 1000, "it never shrinks");
    }
}

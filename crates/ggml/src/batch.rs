//! The tokens of one decode.

use crate::sys;
use crate::vocab::Token;

/// Tokens with their positions and sequences. Reused from step to step.
pub struct Batch {
    raw: sys::llama_batch,
    capacity: usize,
}
// SAFETY: the batch owns its arrays, and llama.cpp keeps no pointer to them between calls.
unsafe impl Send for Batch {}

impl Batch {
    /// Room for `capacity` tokens, each in one sequence.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let room = i32::try_from(capacity.max(1)).unwrap_or(i32::MAX);
        // SAFETY: allocates arrays of `room` entries with one sequence id each.
        let raw = unsafe { sys::llama_batch_init(room, 0, 1) };
        Self { raw, capacity: room.unsigned_abs() as usize }
    }

    /// Tokens in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.raw.n_tokens).unwrap_or(0)
    }

    /// Tokens whose logits are wanted.
    #[must_use]
    pub fn outputs(&self) -> usize {
        // SAFETY: the first `len` entries were written by `push`.
        let wanted = unsafe { std::slice::from_raw_parts(self.raw.logits, self.len()) };
        wanted.iter().filter(|wanted| **wanted != 0).count()
    }

    /// Whether the batch holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.raw.n_tokens = 0;
    }

    /// Adds a token; returns its index, or `None` when the batch is full.
    pub fn push(&mut self, token: Token, position: i32, sequence: i32, logits: bool) -> Option<i32> {
        let at = self.len();
        if at >= self.capacity {
            return None;
        }
        // SAFETY: `at` is below the capacity the arrays were allocated with; each has one sequence id.
        unsafe {
            *self.raw.token.add(at) = token;
            *self.raw.pos.add(at) = position;
            *self.raw.n_seq_id.add(at) = 1;
            **self.raw.seq_id.add(at) = sequence;
            *self.raw.logits.add(at) = i8::from(logits);
        }
        self.raw.n_tokens += 1;
        Some(self.raw.n_tokens - 1)
    }

    pub(crate) fn raw(&self) -> sys::llama_batch {
        self.raw
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: made by llama_batch_init, freed once.
        unsafe { sys::llama_batch_free(self.raw) };
    }
}

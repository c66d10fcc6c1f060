//! Rows of the KV cache in llama.cpp's memory: decoded into, cut, copied, emptied.

use hypura_ggml::{Batch, Context, DecodeError, Token};
use std::sync::Arc;

use super::rows::{RowChoice, RowTable};
use crate::budget::SharedMemory;
use crate::load::LoadedModel;
use crate::media::table::Places;

/// A loaded model, and what its context has in memory.
pub(crate) struct KvRows {
    pub(super) loaded: LoadedModel,
    pub(super) rows: RowTable,
    /// Where tokens and media are.
    pub(super) places: Places,
    /// The memory that this model shares with others; `None`: what was planned for it is its own.
    pub(super) shared_memory: Option<Arc<dyn SharedMemory>>,
}

/// The row that a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub row: usize,
    /// Tokens of its prompt that are in it already.
    pub reused: usize,
}

/// Tokens that a decode adds to a row.
pub(crate) struct Added<'a> {
    pub row: usize,
    pub tokens: &'a [Token],
}

impl KvRows {
    /// Takes over a loaded model.
    pub fn new(loaded: LoadedModel) -> Self {
        let rows = RowTable::new(loaded.context.sequences() as usize);
        let places = Places(loaded.media.as_ref().map(|media| Arc::clone(&media.table)));
        Self { loaded, rows, places, shared_memory: None }
    }

    pub fn loaded(&self) -> &LoadedModel {
        &self.loaded
    }

    pub fn rows(&self) -> &RowTable {
        &self.rows
    }

    /// For logits and embeddings of the last decode.
    pub fn context_mut(&mut self) -> &mut Context {
        &mut self.loaded.context
    }

    /// From now on more memory is asked of what several models share.
    pub fn share_memory(&mut self, memory: Option<Arc<dyn SharedMemory>>) {
        self.shared_memory = memory;
    }

    /// Tokens that one sequence may have in memory.
    pub fn context_tokens(&self) -> usize {
        (self.loaded.context.capacity() / self.loaded.planned.plan.context.sequences.max(1)) as usize
    }

    /// Whether the context is gone: it could not be made anew, nor as it had been. Nothing can be computed
    /// any more.
    pub fn is_lost(&self) -> bool {
        self.loaded.context.capacity() == 0
    }

    /// Whether tokens can be dropped from the end of a row and shared with others. Not where a state stands
    /// for all that came before (recurrent and hybrid models).
    pub fn rewinds(&self) -> bool {
        !self.loaded.model.is_recurrent()
    }

    /// The position of token `at` of a sequence.
    pub fn position(&self, tokens: &[Token], at: usize) -> i32 {
        index(self.places.position(tokens, at))
    }

    /// Gives a request a row, with as much of its prompt in it as some row has; `None` when all rows are in
    /// use.
    pub fn admit(&mut self, id: u64, prompt: &[Token]) -> Option<Admitted> {
        let RowChoice { row, common, from } = self.choose(prompt)?;
        self.rows.take(row, id);
        let reused = match from {
            None => self.truncate(row, common),
            Some(from) => self.copy(from, row, common),
        };
        Some(Admitted { row, reused })
    }

    /// A request uses a row, which keeps what it has, until it is [released](Self::release).
    pub fn hold(&mut self, row: usize, id: u64) {
        self.rows.take(row, id);
    }

    /// A request is done; its tokens stay for the next one that can use them.
    pub fn release(&mut self, row: usize) {
        self.rows.release(row);
    }

    /// Computes a batch that adds these tokens to their rows. When it fails, nothing was added.
    pub fn decode(&mut self, batch: &Batch, added: &[Added<'_>]) -> Result<(), DecodeError> {
        loop {
            match self.loaded.decode(batch) {
                Ok(()) => break,
                Err(DecodeError::NoRoom(_)) if self.forget_oldest() => {}
                Err(error) => {
                    for Added { row, .. } in added {
                        self.truncate(*row, self.rows.row(*row).cached.len());
                    }
                    return Err(error);
                }
            }
        }
        for Added { row, tokens } in added {
            self.rows.cached_mut(*row).extend_from_slice(tokens);
        }
        Ok(())
    }

    /// Drops what a row has beyond `length` tokens; everything, where the memory cannot drop a part. A medium
    /// of which something is to go goes as a whole. Returns what is left.
    pub fn truncate(&mut self, row: usize, length: usize) -> usize {
        let mut tokens = std::mem::take(self.rows.cached_mut(row));
        let length = self.places.whole(&tokens, length);
        let from = self.position(&tokens, length);
        tokens.truncate(length);
        if self.loaded.context.forget(index(row), from) && self.holds(row, &tokens) {
            *self.rows.cached_mut(row) = tokens;
            return length;
        }
        self.empty(row);
        0
    }

    /// Empties a row.
    pub fn empty(&mut self, row: usize) {
        self.loaded.context.forget(index(row), 0);
        self.rows.cached_mut(row).clear();
    }

    /// Empties all rows; nobody has one any more.
    pub fn clear(&mut self) {
        self.loaded.context.clear();
        self.rows = RowTable::new(self.rows.all().len());
    }

    /// How a prompt gets a row.
    pub(super) fn choose(&self, prompt: &[Token]) -> Option<RowChoice> {
        self.rows.choose(prompt, self.rewinds(), |length| self.places.whole(prompt, length))
    }

    /// Whether llama.cpp has exactly the positions of these tokens in a row. A sliding window may have
    /// dropped some; of recurrent state, which stands for all that came before, only the last position is
    /// reported.
    pub(super) fn holds(&self, row: usize, tokens: &[Token]) -> bool {
        match self.loaded.context.positions(index(row)) {
            None => tokens.is_empty(),
            Some((first, last)) => {
                (first == 0 || !self.rewinds()) && self.places.last_position(tokens).map(index) == Some(last)
            }
        }
    }

    /// Puts a saved state of these tokens into an empty row. False where that does not work; the row is empty
    /// then.
    pub(super) fn restore(&mut self, row: usize, tokens: &[Token], state: &[u8]) -> bool {
        let restored =
            !tokens.is_empty() && self.loaded.context.restore(index(row), state) && self.holds(row, tokens);
        if restored {
            *self.rows.cached_mut(row) = tokens.to_vec();
        } else {
            self.empty(row);
        }
        restored
    }

    /// Copies the beginning of a row to another.
    fn copy(&mut self, from: usize, to: usize, length: usize) -> usize {
        self.empty(to);
        let tokens: Vec<Token> = self.rows.row(from).cached[..length].to_vec();
        let end = self.position(&tokens, length);
        self.loaded.context.share(index(from), index(to), end);
        if !self.holds(to, &tokens) {
            self.empty(to);
            return 0;
        }
        *self.rows.cached_mut(to) = tokens;
        length
    }

    /// Makes room by dropping the idle conversation that nobody missed for longest.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.rows.oldest_idle();
        if let Some(row) = oldest {
            self.empty(row);
        }
        oldest.is_some()
    }

    /// Numbers of media that neither a request nor a row has may be forgotten.
    pub fn forget_media(&self) {
        if let Some(table) = &self.places.0 {
            table.tidy(|token| self.rows.all().iter().any(|row| row.cached.contains(&token)));
        }
    }
}

/// A position or sequence id for llama.cpp.
pub(crate) fn index(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

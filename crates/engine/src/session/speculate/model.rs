//! A draft model: its own KV cache follows the sequences', row by row.
//!
//! Invariant: between calls a row of it holds a beginning of what its sequence was when it last drafted, or
//! tokens of an earlier one; either way the tokens say what is there, and what differs is dropped first.
//!
//! A draft model that fails drafts nothing any more; nobody's answer depends on it.

use hypura_core::speculate::{Confidence, Draft};
use hypura_ggml::{Batch, DecodeError, Token};

use super::proposer::{Ask, Proposer};
use crate::load::{DRAFT_UBATCH, LoadedModel};
use crate::session::kv::{Added, KvRows, index};

/// A draft model and its KV cache.
pub(super) struct DraftModel {
    kv: KvRows,
    batch: Batch,
    /// Tokens that the model it drafts for knows.
    vocab: usize,
}

impl DraftModel {
    /// Takes over a loaded draft model; `vocab` is how many tokens the model has that it drafts for.
    pub fn new(loaded: LoadedModel, vocab: usize) -> Self {
        Self { kv: KvRows::new(loaded), batch: Batch::new(DRAFT_UBATCH as usize), vocab }
    }

    /// Tokens of a sequence that are not in this model's memory yet.
    pub fn behind(&self, row: usize, tokens: &[Token]) -> usize {
        tokens.len() - self.common(row, tokens)
    }

    /// Tokens in memory that the sequence begins with; the last one is always computed, for its logits.
    fn common(&self, row: usize, tokens: &[Token]) -> usize {
        let Some(row) = self.kv.rows().all().get(row) else { return 0 };
        let equal = row.cached.iter().zip(tokens).take_while(|(cached, token)| cached == token).count();
        equal.min(tokens.len().saturating_sub(1))
    }

    /// Whether the sequence can be followed to the end of the drafts.
    fn has_room(&self, ask: &Ask<'_>) -> bool {
        let room = self.kv.context_tokens();
        ask.row < self.kv.rows().all().len()
            && ask.tokens.len() + ask.most <= room
            && ask.tokens.iter().all(|token| *token >= 0)
    }

    /// Computes tokens at the end of a row, the logits of the last one if they are `wanted`.
    fn decode(&mut self, row: usize, tokens: &[Token], wanted: bool) -> Result<(), DecodeError> {
        let first = self.kv.rows().row(row).cached.len();
        self.batch.clear();
        for (at, token) in tokens.iter().enumerate() {
            let has_logits = wanted && at + 1 == tokens.len();
            self.batch.push(*token, index(first + at), index(row), has_logits);
        }
        self.kv.decode(&self.batch, &[Added { row, tokens }])
    }

    /// The likeliest token after the last decode, and its probability.
    fn likeliest(&mut self) -> Result<Option<Draft>, DecodeError> {
        let last = index(self.batch.len()) - 1;
        let logits = self.kv.context_mut().logits(last)?;
        let best = logits.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1));
        let Some((token, most)) = best.filter(|(token, _)| *token < self.vocab) else { return Ok(None) };
        let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
        Ok(Some(Draft { token: index(token), confidence: Confidence::Probability(1.0 / sum) }))
    }

    fn draft(
        &mut self,
        ask: &Ask<'_>,
        goes_on: &mut dyn FnMut(&[Draft]) -> bool,
    ) -> Result<Vec<Draft>, DecodeError> {
        let common = self.common(ask.row, ask.tokens);
        if self.kv.rows().row(ask.row).cached.len() > common {
            self.kv.truncate(ask.row, common);
        }
        let missing = &ask.tokens[self.kv.rows().row(ask.row).cached.len()..];
        let part = missing.len().min(DRAFT_UBATCH as usize);
        let is_last = part == missing.len();
        self.decode(ask.row, &missing[..part], is_last)?;
        let mut drafts = Vec::new();
        // A long prompt is caught up with in parts, between steps of the model: nobody waits long for that.
        while is_last && drafts.len() < ask.most && goes_on(&drafts) {
            if let Some(Draft { token, .. }) = drafts.last() {
                self.decode(ask.row, &[*token], true)?;
            }
            let Some(draft) = self.likeliest()? else { break };
            drafts.push(draft);
        }
        Ok(drafts)
    }
}

impl Proposer for DraftModel {
    fn propose(
        &mut self,
        ask: &Ask<'_>,
        goes_on: &mut dyn FnMut(&[Draft]) -> bool,
    ) -> Result<Vec<Draft>, DecodeError> {
        if !self.has_room(ask) {
            return Ok(Vec::new());
        }
        self.kv.hold(ask.row, ask.id);
        let drafts = self.draft(ask, goes_on);
        self.kv.release(ask.row);
        drafts
    }

    /// Its row stays, for the next request that begins like it.
    fn forget(&mut self, _: u64) {}
}

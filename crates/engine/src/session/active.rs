//! The requests that run: their sequences, their rows, and what of them is to be computed next.

use hypura_ggml::{Batch, Token};
use std::ops::Range;

use super::divide::{Share, Wanted};
use super::encoded::Encoded;
use super::kv::{KvRows, index};
use super::sequence::Sequence;

/// A request that runs.
pub(super) struct Active {
    pub id: u64,
    pub row: usize,
    pub sequence: Sequence,
    /// The rows of the medium that it is at.
    pub encoded: Option<Encoded>,
}

impl Active {
    /// Tokens that are in memory.
    pub fn cached(&self, kv: &KvRows) -> usize {
        kv.rows().row(self.row).cached.len()
    }

    /// What is not in memory yet.
    pub fn missing(&self, kv: &KvRows) -> &[Token] {
        self.sequence.tokens().get(self.cached(kv)..).unwrap_or_default()
    }

    /// What is not in memory yet and comes before the next medium.
    pub fn next_tokens(&self, kv: &KvRows) -> &[Token] {
        let missing = self.missing(kv);
        let until_medium = missing.iter().take_while(|token| **token >= 0).count();
        &missing[..until_medium]
    }

    /// What it wants of the next step.
    pub fn wanted(&self, kv: &KvRows) -> Wanted {
        let tokens = self.next_tokens(kv).len();
        let length = self.sequence.tokens().len();
        let reaches_end = tokens > 0 && self.cached(kv) + tokens == length;
        let room = if reaches_end { kv.context_tokens().saturating_sub(length) } else { 0 };
        Wanted { tokens, reaches_end, drafts: self.sequence.drafts().len().min(room) }
    }

    /// Tokens that it misses, and whether the next step brings it a token without any of a prompt.
    pub fn decodes(&self, kv: &KvRows) -> (usize, bool) {
        let Wanted { tokens, reaches_end, .. } = self.wanted(kv);
        (tokens, tokens == 1 && reaches_end)
    }

    /// Puts the next tokens into a batch, and drafts after the last of all; returns the entries that get
    /// logits: none before the last token is among them.
    pub fn fill(&self, kv: &KvRows, batch: &mut Batch, share: Share) -> Range<i32> {
        let (first, all) = (self.cached(kv), self.sequence.tokens());
        let tokens = all[first..first + share.tokens].iter();
        let drafts = self.sequence.drafts()[..share.drafts].iter();
        let position = kv.position(all, first);
        let mut rows = 0..0;
        for (at, token) in tokens.chain(drafts).enumerate() {
            let has_logits = first + at + 1 >= all.len();
            let entry = batch.push(*token, position + index(at), index(self.row), has_logits);
            if let Some(entry) = entry.filter(|_| has_logits) {
                rows = if rows.is_empty() { entry..entry + 1 } else { rows.start..entry + 1 };
            }
        }
        rows
    }
}

/// What one sequence has in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub id: u64,
    /// Index into the running sequences.
    pub active: usize,
    pub tokens: usize,
    /// Drafts after the last token of the sequence.
    pub drafts: usize,
    /// Batch entries with logits: of the last token, where it is among `tokens`, and of each draft.
    pub rows: Range<i32>,
    /// Rows of a medium, which are alone in their step.
    pub is_media: bool,
}

/// All requests that run, in the order in which they came.
#[derive(Default)]
pub(super) struct Running(Vec<Active>);

impl Running {
    pub fn all(&self) -> &[Active] {
        &self.0
    }

    pub fn ids(&self) -> Vec<u64> {
        self.0.iter().map(|active| active.id).collect()
    }

    pub fn find(&self, id: u64) -> Option<&Active> {
        self.0.iter().find(|active| active.id == id)
    }

    pub fn find_mut(&mut self, id: u64) -> Option<&mut Active> {
        self.0.iter_mut().find(|active| active.id == id)
    }

    /// One by its place among all.
    pub fn get_mut(&mut self, at: usize) -> &mut Active {
        &mut self.0[at]
    }

    pub fn push(&mut self, active: Active) {
        self.0.push(active);
    }

    pub fn remove(&mut self, id: u64) -> Option<Active> {
        let at = self.0.iter().position(|active| active.id == id)?;
        Some(self.0.remove(at))
    }

    /// Numbers of media that are read to the end are of no use any more.
    pub fn drop_read_media(&mut self, kv: &KvRows) {
        for active in &mut self.0 {
            let read = active.cached(kv);
            if active.encoded.as_ref().is_some_and(|encoded| !encoded.is_needed(&active.sequence, read)) {
                active.encoded = None;
            }
        }
    }
}

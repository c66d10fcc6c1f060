//! Steps that read a medium (a picture, or a piece of a sound): rows of embeddings in place of tokens.
//!
//! A medium is encoded when its sequence gets to it, on the thread that decodes: the others wait for that long. Its rows are
//! then read in steps of their own, one sequence at a time, between the steps of the others. Rows that see each other are read
//! in one step.

use hypura_ggml::{RowsPart, Token};

use super::batcher::{Active, Batcher, Part, index};
use crate::error::GenerateError;

/// The rows of a medium.
pub(super) struct Encoded {
    /// Where the medium begins in its sequence.
    start: usize,
    rows: Vec<f32>,
}

/// How many of these tokens, which are not in memory yet, come before the next medium.
pub(super) fn next_stretch(missing: &[Token]) -> usize {
    missing.iter().take_while(|token| **token >= 0).count()
}

impl Batcher {
    /// The next step, if it is one of a medium: media and texts take turns, where there are both.
    pub(super) fn fill_media(&mut self, ids: &[u64]) -> Option<Part> {
        self.places.0.as_ref()?;
        let next = |active: &Active| {
            let first = self.memory.row(active.row).cached.len();
            active.sequence.tokens().get(first).copied()
        };
        let mine = || self.active.iter().enumerate().filter(|(_, active)| ids.contains(&active.id));
        let waiting: Vec<usize> = mine()
            .filter(|(_, active)| next(active).is_some_and(|token| token < 0))
            .map(|(at, _)| at)
            .collect();
        let reads = mine().any(|(_, active)| next(active).is_some_and(|token| token >= 0));
        if waiting.is_empty() || (reads && self.turn.is_multiple_of(2)) {
            return None;
        }
        let at = waiting[(self.turn / 2) % waiting.len()];
        self.turn = self.turn.wrapping_add(1);
        let Active { id, row, sequence, .. } = &self.active[at];
        let first = self.memory.row(*row).cached.len();
        let medium = sequence.media_at(first)?;
        let left = medium.start + medium.rows() - first;
        // Too many that must be in one step: an error when it is computed.
        let tokens = if medium.chunk.raw.non_causal() { left } else { left.min(self.room()) };
        Some(Part { id: *id, active: at, tokens, logits: None, is_media: true })
    }

    /// Puts the rows of a medium into the batch, if the step is one of a medium.
    pub(super) fn place_media(&mut self, parts: &mut [Part]) -> Result<(), GenerateError> {
        let [part] = parts else { return Ok(()) };
        if !part.is_media {
            return Ok(());
        }
        let room = self.room();
        let Active { row, sequence, encoded, .. } = &mut self.active[part.active];
        let first = self.memory.row(*row).cached.len();
        let (Some(medium), Some(media)) = (sequence.media_at(first).cloned(), &self.loaded.media) else {
            return Err(GenerateError::NoSequence);
        };
        if part.tokens > room {
            return Err(GenerateError::ImageTooLong { rows: part.tokens, most: room });
        }
        let chunk = &medium.chunk.raw;
        if encoded.as_ref().is_none_or(|encoded| encoded.start != medium.start) {
            // First away with the one before: two are more than the plan counts.
            *encoded = None;
            let rows = media.projector.encode(chunk)?;
            *encoded = Some(Encoded { start: medium.start, rows });
        }
        let position = self.places.position(sequence.tokens(), medium.start);
        let places = chunk.places(index(position))?;
        let (from, width) = (first - medium.start, media.projector.width());
        let numbers =
            encoded.as_ref().and_then(|encoded| encoded.rows.get(from * width..(from + part.tokens) * width));
        let last = first + part.tokens == sequence.tokens().len();
        let entry = self.batch.set_rows(&RowsPart {
            numbers: numbers.unwrap_or_default(),
            places: &places,
            from,
            rows: part.tokens,
            sequence: index(*row),
            non_causal: chunk.non_causal(),
            logits: last,
        });
        let Some(entry) = entry else { return Err(GenerateError::NoSequence) };
        part.logits = last.then_some(entry);
        Ok(())
    }

    /// What was read of a medium is in memory: its numbers are of no use any more once that is all of it.
    pub(super) fn drop_read_media(&mut self) {
        for Active { row, sequence, encoded, .. } in &mut self.active {
            let read = self.memory.row(*row).cached.len();
            let needed = |encoded: &Encoded| {
                sequence.media_at(read).is_some_and(|medium| medium.start == encoded.start)
            };
            if !encoded.as_ref().is_none_or(needed) {
                *encoded = None;
            }
        }
    }

    /// Numbers of media that neither a request nor the memory has may be forgotten.
    pub(super) fn forget_media(&self) {
        if let Some(table) = &self.places.0 {
            table.tidy(|token| self.memory.rows().iter().any(|row| row.cached.contains(&token)));
        }
    }
}

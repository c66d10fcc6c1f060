//! Steps that read a medium (a picture, or a piece of a sound): rows of embeddings in place of tokens.
//!
//! A medium is encoded when its sequence gets to it, on the thread that decodes: the others wait for that
//! long. Its rows are then read in steps of their own, one sequence at a time, between the steps of the
//! others. Rows that see each other are read in one step.

use hypura_ggml::{Batch, RowsPart};

use super::active::{Active, Part};
use super::encoded::Encoded;
use super::kv::{KvRows, index};
use crate::error::GenerateError;

/// The next step, if it is one of a medium: media and texts take turns, where there are both.
pub(super) fn next_part(
    kv: &KvRows,
    running: &[Active],
    ids: &[u64],
    turn: usize,
    room: usize,
) -> Option<Part> {
    kv.loaded().media.as_ref()?;
    let next = |active: &Active| active.missing(kv).first().copied();
    let mine = || running.iter().enumerate().filter(|(_, active)| ids.contains(&active.id));
    let waiting: Vec<usize> =
        mine().filter(|(_, active)| next(active).is_some_and(|token| token < 0)).map(|(at, _)| at).collect();
    let reads = mine().any(|(_, active)| next(active).is_some_and(|token| token >= 0));
    if waiting.is_empty() || (reads && turn.is_multiple_of(2)) {
        return None;
    }
    let at = waiting[(turn / 2) % waiting.len()];
    let active = &running[at];
    let first = active.cached(kv);
    let medium = active.sequence.media_at(first)?;
    let left = medium.start + medium.rows() - first;
    // Too many that must be in one step: an error when it is computed.
    let tokens = if medium.chunk.raw.non_causal() { left } else { left.min(room) };
    Some(Part { id: active.id, active: at, tokens, drafts: 0, rows: 0..0, is_media: true })
}

/// Puts the rows of a medium into the batch.
pub(super) fn place(
    kv: &KvRows,
    active: &mut Active,
    batch: &mut Batch,
    part: &mut Part,
    room: usize,
) -> Result<(), GenerateError> {
    let first = active.cached(kv);
    let Active { row, sequence, encoded, .. } = active;
    let (Some(medium), Some(media)) = (sequence.media_at(first).cloned(), &kv.loaded().media) else {
        return Err(GenerateError::NoSequence);
    };
    if part.tokens > room {
        return Err(GenerateError::ImageTooLong { rows: part.tokens, most: room });
    }
    if encoded.as_ref().is_none_or(|encoded| !encoded.is_of(&medium)) {
        // First away with the one before: two are more than the plan counts.
        *encoded = None;
        *encoded = Some(Encoded::of(&medium, media)?);
    }
    let chunk = &medium.chunk.raw;
    let places = chunk.places(kv.position(sequence.tokens(), medium.start))?;
    let (from, width) = (first - medium.start, media.projector.width());
    let numbers = encoded.as_ref().and_then(|encoded| encoded.numbers(from * width, part.tokens * width));
    let last = first + part.tokens == sequence.tokens().len();
    let entry = batch.set_rows(&RowsPart {
        numbers: numbers.unwrap_or_default(),
        places: &places,
        from,
        rows: part.tokens,
        sequence: index(*row),
        non_causal: chunk.non_causal(),
        logits: last,
    });
    let Some(entry) = entry else { return Err(GenerateError::NoSequence) };
    part.rows = if last { entry..entry + 1 } else { 0..0 };
    Ok(())
}

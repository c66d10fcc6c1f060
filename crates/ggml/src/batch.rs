//! The tokens of one decode, or rows of embeddings in their place.

use crate::media::RowPlaces;
use crate::sys;
use crate::vocab::Token;

/// Tokens with their positions and sequences, or rows of embeddings of one sequence. Reused from step to
/// step.
pub struct Batch {
    raw: sys::llama_batch,
    capacity: usize,
    rows: Option<Rows>,
}
// SAFETY: the batch owns its arrays, and llama.cpp keeps no pointer to them between calls.
unsafe impl Send for Batch {}

/// What takes the place of tokens.
struct Rows {
    numbers: Vec<f32>,
    /// One for each row, or four: first of all rows, second of all rows, and so on.
    positions: Vec<i32>,
    non_causal: bool,
}

/// A part of a picture, for one decode.
#[derive(Clone, Copy, Debug)]
pub struct RowsPart<'a> {
    /// Rows of embeddings, as wide as the model takes them.
    pub numbers: &'a [f32],
    /// Positions of the whole picture's rows.
    pub places: &'a RowPlaces,
    /// Its first row in those.
    pub from: usize,
    /// How many rows.
    pub rows: usize,
    /// Whose they are.
    pub sequence: i32,
    /// Whether the rows see each other.
    pub non_causal: bool,
    /// Whether the logits of the last row are wanted.
    pub logits: bool,
}

impl Batch {
    /// Room for `capacity` tokens, each in one sequence.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let room = i32::try_from(capacity.max(1)).unwrap_or(i32::MAX);
        // SAFETY: allocates arrays of `room` entries with one sequence id each.
        let raw = unsafe { sys::llama_batch_init(room, 0, 1) };
        Self { raw, capacity: room.unsigned_abs() as usize, rows: None }
    }

    /// Tokens or rows in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.raw.n_tokens).unwrap_or(0)
    }

    /// Entries whose logits are wanted.
    #[must_use]
    pub fn outputs(&self) -> usize {
        // SAFETY: the first `len` entries were written by `push` or `set_rows`.
        let wanted = unsafe { std::slice::from_raw_parts(self.raw.logits, self.len()) };
        wanted.iter().filter(|wanted| **wanted != 0).count()
    }

    /// Whether the batch holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.raw.n_tokens = 0;
        self.rows = None;
    }

    /// Adds a token; returns its index, or `None` when the batch is full or holds rows.
    pub fn push(&mut self, token: Token, position: i32, sequence: i32, logits: bool) -> Option<i32> {
        let at = self.len();
        if at >= self.capacity || self.rows.is_some() {
            return None;
        }
        // SAFETY: `at` is below the capacity the arrays were allocated with.
        unsafe {
            *self.raw.token.add(at) = token;
            *self.raw.pos.add(at) = position;
        }
        self.describe(at, sequence, logits);
        self.raw.n_tokens += 1;
        Some(self.raw.n_tokens - 1)
    }

    /// Puts rows of a picture in place of everything; returns the index of the last one, or `None` when there
    /// are none, more than there is room for, or not as many numbers and positions as they need.
    pub fn set_rows(&mut self, part: &RowsPart<'_>) -> Option<i32> {
        self.clear();
        let RowsPart { from, rows, .. } = *part;
        let end = from.checked_add(rows)?;
        if rows == 0
            || rows > self.capacity
            || part.numbers.is_empty()
            || !part.numbers.len().is_multiple_of(rows)
        {
            return None;
        }
        let positions = match part.places {
            RowPlaces::One(places) => places.get(from..end)?.to_vec(),
            RowPlaces::Four(places) => {
                let places = places.get(from..end)?;
                (0..4).flat_map(|section| places.iter().map(move |place| place[section])).collect()
            }
        };
        for at in 0..rows {
            self.describe(at, part.sequence, part.logits && at + 1 == rows);
        }
        self.raw.n_tokens = i32::try_from(rows).ok()?;
        self.rows = Some(Rows { numbers: part.numbers.to_vec(), positions, non_causal: part.non_causal });
        Some(self.raw.n_tokens - 1)
    }

    /// Whether the entries see each other, later ones too.
    pub(crate) fn non_causal(&self) -> bool {
        self.rows.as_ref().is_some_and(|rows| rows.non_causal)
    }

    /// Numbers in each row; `None` for tokens.
    pub(crate) fn width(&self) -> Option<usize> {
        self.rows.as_ref().map(|rows| rows.numbers.len() / self.len().max(1))
    }

    /// Positions of each row; `None` for tokens.
    pub(crate) fn positions_each(&self) -> Option<usize> {
        self.rows.as_ref().map(|rows| rows.positions.len() / self.len().max(1))
    }

    fn describe(&mut self, at: usize, sequence: i32, logits: bool) {
        // SAFETY: the callers checked that `at` is below the capacity the arrays were allocated with; each
        // entry has one sequence id.
        unsafe {
            *self.raw.n_seq_id.add(at) = 1;
            **self.raw.seq_id.add(at) = sequence;
            *self.raw.logits.add(at) = i8::from(logits);
        }
    }

    /// For a decode, which only reads.
    pub(crate) fn raw(&self) -> sys::llama_batch {
        match &self.rows {
            None => self.raw,
            Some(rows) => sys::llama_batch {
                token: std::ptr::null_mut(),
                embd: rows.numbers.as_ptr().cast_mut(),
                pos: rows.positions.as_ptr().cast_mut(),
                ..self.raw
            },
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: made by llama_batch_init, freed once.
        unsafe { sys::llama_batch_free(self.raw) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_must_have_their_numbers_and_their_places() {
        let places = RowPlaces::Four((0..5).map(|at| [at, at + 10, at + 20, 0]).collect());
        let numbers = [0.5; 12];
        let part = RowsPart {
            numbers: &numbers,
            places: &places,
            from: 1,
            rows: 3,
            sequence: 2,
            non_causal: true,
            logits: true,
        };
        let mut batch = Batch::new(4);
        assert_eq!(batch.set_rows(&part), Some(2));
        assert_eq!((batch.len(), batch.outputs(), batch.width()), (3, 1, Some(4)));
        assert_eq!(batch.positions_each(), Some(4));
        assert!(batch.non_causal() && batch.push(1, 0, 0, true).is_none());
        let positions = &batch.rows.as_ref().unwrap().positions;
        assert_eq!(*positions, [1, 2, 3, 11, 12, 13, 21, 22, 23, 0, 0, 0]);
        for bad in [
            RowsPart { rows: 5, ..part },
            RowsPart { rows: 0, ..part },
            RowsPart { from: 3, ..part },
            RowsPart { from: usize::MAX, ..part },
            RowsPart { numbers: &numbers[..11], ..part },
        ] {
            assert_eq!(batch.set_rows(&bad), None, "{bad:?}");
            assert!(batch.is_empty());
        }
        assert_eq!(batch.push(7, 0, 0, true), Some(0));
        assert_eq!(batch.width(), None);
    }
}

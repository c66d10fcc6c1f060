//! A medium that its projector has turned into rows of embeddings, kept while a sequence reads it.

use super::sequence::Sequence;
use crate::error::GenerateError;
use crate::media::MediaTools;
use crate::media::prompt::Placed;

/// The rows of a medium.
pub(super) struct Encoded {
    /// Where the medium begins in its sequence.
    start: usize,
    rows: Vec<f32>,
}

impl Encoded {
    /// Has the projector compute them.
    pub fn of(medium: &Placed, media: &MediaTools) -> Result<Self, GenerateError> {
        Ok(Self { start: medium.start, rows: media.projector.encode(&medium.chunk.raw)? })
    }

    /// Whether these are the rows of this medium.
    pub fn is_of(&self, medium: &Placed) -> bool {
        self.start == medium.start
    }

    /// So many of its numbers, from this one on.
    pub fn numbers(&self, from: usize, count: usize) -> Option<&[f32]> {
        self.rows.get(from..from + count)
    }

    /// Whether a sequence of which so many rows are read still reads this medium.
    pub fn is_needed(&self, sequence: &Sequence, read: usize) -> bool {
        sequence.media_at(read).is_some_and(|medium| self.is_of(medium))
    }
}

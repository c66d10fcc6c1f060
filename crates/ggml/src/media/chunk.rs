//! Pieces of a tokenized prompt that are media.

use crate::vocab::Token;
use std::ffi::CStr;
use std::ptr::NonNull;

use super::error::{MediaError, Reason};
use super::ffi;

pub(super) struct Chunks(pub(super) NonNull<ffi::Chunks>);

impl Chunks {
    pub(super) fn len(&self) -> usize {
        // SAFETY: the chunks are alive.
        unsafe { ffi::hypura_media_chunk_count(self.0.as_ptr()) }
    }

    pub(super) fn tokens(&self, at: usize) -> Option<Vec<Token>> {
        let mut count = 0;
        // SAFETY: the chunks are alive and have a chunk `at`.
        let tokens = unsafe { ffi::hypura_media_chunk_tokens(self.0.as_ptr(), at, &raw mut count) };
        // SAFETY: the shim says how many tokens there are; they live as long as the chunks.
        (!tokens.is_null()).then(|| unsafe { std::slice::from_raw_parts(tokens, count) }.to_vec())
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { ffi::hypura_media_chunks_free(self.0.as_ptr()) };
    }
}

/// A picture or a piece of a sound in a prompt, ready to be encoded: so many rows of the KV cache.
#[derive(Debug)]
pub struct MediaChunk {
    pub(super) raw: NonNull<ffi::Chunk>,
    pub(super) non_causal: bool,
    pub(super) mrope: bool,
}
// SAFETY: mtmd only reads a chunk once it is made.
unsafe impl Send for MediaChunk {}
// SAFETY: as above.
unsafe impl Sync for MediaChunk {}

impl MediaChunk {
    /// The `id` of the medium that it is, or is a part of.
    #[must_use]
    pub fn id(&self) -> String {
        // SAFETY: the chunk is alive, and with it its name.
        let id = unsafe { ffi::hypura_media_chunk_id(self.raw.as_ptr()) };
        if id.is_null() {
            return String::new();
        }
        // SAFETY: as above; it is NUL-terminated.
        unsafe { CStr::from_ptr(id) }.to_string_lossy().into_owned()
    }

    /// Rows of the KV cache that it takes.
    #[must_use]
    pub fn rows(&self) -> usize {
        // SAFETY: the chunk is alive.
        unsafe { ffi::hypura_media_chunk_rows(self.raw.as_ptr()) }
    }

    /// Positions that what follows is further on: as many as rows, fewer for pictures of M-RoPE models.
    #[must_use]
    pub fn positions(&self) -> usize {
        // SAFETY: the chunk is alive.
        usize::try_from(unsafe { ffi::hypura_media_chunk_positions(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Whether its rows see each other, and must therefore be in one graph.
    #[must_use]
    pub fn non_causal(&self) -> bool {
        self.non_causal
    }

    /// The positions of its rows when it begins at `first`: one, or four (time, height, width, and one more)
    /// for M-RoPE.
    ///
    /// # Errors
    /// [`MediaError::Medium`] when mtmd cannot tell.
    pub fn places(&self, first: i32) -> Result<RowPlaces, MediaError> {
        let rows = self.rows();
        if !self.mrope {
            return Ok(RowPlaces::One((first..).take(rows).collect()));
        }
        let mut places = vec![[0; 4]; rows];
        let mut reason = Reason::new();
        // SAFETY: the chunk is alive; the buffer has room for four numbers a row; the shim catches
        // exceptions.
        let ok = unsafe {
            ffi::hypura_media_chunk_places(
                self.raw.as_ptr(),
                first,
                places.as_mut_ptr().cast::<i32>(),
                reason.pointer(),
                Reason::ROOM,
            )
        };
        if ok { Ok(RowPlaces::Four(places)) } else { Err(MediaError::Medium(reason.text(None))) }
    }
}

impl Drop for MediaChunk {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ffi::hypura_media_chunk_free(self.raw.as_ptr()) };
    }
}

/// Positions of rows of embeddings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowPlaces {
    /// One position each.
    One(Vec<i32>),
    /// Four positions each: time, height, width, and one more.
    Four(Vec<[i32; 4]>),
}

impl RowPlaces {
    /// The largest position that the KV cache knows a row by; rows that do not exist have −1.
    #[must_use]
    pub fn last(&self) -> i32 {
        match self {
            Self::One(places) => places.iter().copied().max().unwrap_or(-1),
            Self::Four(places) => places.iter().map(|place| place[0]).max().unwrap_or(-1),
        }
    }
}

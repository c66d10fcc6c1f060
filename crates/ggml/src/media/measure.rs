//! What a projector would take, found out without its weights being read.

use super::border::{c_path, init};
use super::error::{MediaError, Reason};
use super::ffi;
use std::path::Path;

/// What a projector takes and can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectorUse {
    /// Bytes of what sees: weights, and compute buffers for a picture of `probe_pixels`.
    pub vision_bytes: u64,
    /// Bytes of what hears: weights, and compute buffers for `probe_steps` of sound.
    pub audio_bytes: u64,
    /// Bytes of weights that are loaded and serve neither.
    pub other_bytes: u64,
    /// Numbers in a row of embeddings: the model's must be as many.
    pub width: u64,
    /// Pixels of the picture that the compute buffers are for.
    pub probe_pixels: u64,
    /// Pixels of the largest picture that the projector takes unshrunk; 0 where all are scaled to one size.
    pub most_pixels: u64,
    /// Rows of the largest picture, as far as mtmd tells.
    pub most_rows: u32,
    /// Steps of sound (columns of its spectrum) that the compute buffers are for.
    pub probe_steps: u64,
    /// Steps of the longest piece of a sound.
    pub most_steps: u64,
    /// Numbers that a second of sound becomes before it is encoded.
    pub sound_numbers: u64,
    /// Rows of the longest piece of a sound.
    pub sound_rows: u32,
    /// Whether the rows of a picture see each other, so that they must be in one graph.
    pub non_causal: bool,
    /// Takes pictures.
    pub vision: bool,
    /// Takes sounds.
    pub audio: bool,
    /// Takes sounds of any length, in pieces; otherwise up to [`PIECE_SECONDS`].
    pub audio_any_length: bool,
}

/// Seconds of the longest piece of a sound that is encoded at once (`piece_seconds` of `shim.cpp`).
pub const PIECE_SECONDS: u32 = 30;

/// What a projector would take. Its graph is built, its weights are not read.
///
/// # Errors
/// [`MediaError::Projector`].
pub fn measure(path: &Path) -> Result<ProjectorUse, MediaError> {
    init();
    let c_path = c_path(path)?;
    let mut reason = Reason::new();
    let mut found = ffi::Use::default();
    // SAFETY: the path is NUL-terminated, the result and the buffer are valid for the call; the shim catches
    // exceptions.
    let ok =
        unsafe { ffi::hypura_media_measure(c_path.as_ptr(), &raw mut found, reason.pointer(), Reason::ROOM) };
    if !ok {
        return Err(MediaError::Projector(reason.text(Some(path))));
    }
    let rows = |rows: i32| u32::try_from(rows).unwrap_or(0);
    Ok(ProjectorUse {
        vision_bytes: found.vision_bytes,
        audio_bytes: found.audio_bytes,
        other_bytes: found.other_bytes,
        width: found.width,
        probe_pixels: found.probe_pixels,
        most_pixels: found.most_pixels,
        most_rows: rows(found.most_rows),
        probe_steps: found.probe_steps,
        most_steps: found.most_steps,
        sound_numbers: found.sound_numbers,
        sound_rows: rows(found.sound_rows),
        non_causal: found.image_non_causal,
        vision: found.vision,
        audio: found.audio,
        audio_any_length: found.audio_any_length,
    })
}

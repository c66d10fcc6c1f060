//! From the bytes of a sound file to its samples, in Rust, within bounds.
//!
//! - `format`: what a file is
//! - `wav`: a header and numbers, read here: every length in it is held against the file before anything is
//!   allocated
//! - `packed`: mp3 and flac
//! - `resample`: to as many samples a second as a projector wants, and `sink`: all of it within limits
//!
//! A sound is mixed to one channel and resampled piece by piece while it is decoded: what exists as a whole
//! is the file, and the samples that the projector gets. Where a file says how long it is, that is held
//! against the limit before it is decoded; what is decoded is counted in any case.

mod error;
mod format;
mod packed;
mod resample;
mod sink;
mod wav;

pub use error::{MOST_BYTES, SoundError};
pub use format::is_sound;

use format::{Format, checked_format};
use sink::Limit;

/// Most seconds of sound in a prompt. The plan of a model that hears counts what they take.
pub const MOST_SECONDS: u32 = 600;

/// Shorter sounds get silence behind them: encoders want some columns of a spectrum before they normalise it.
const LEAST_SECONDS: f64 = 0.5;

/// Whether bytes begin like a sound that can be used, as far as its header tells.
///
/// # Errors
/// [`SoundError`].
pub fn probe(bytes: &[u8]) -> Result<(), SoundError> {
    match checked_format(bytes)? {
        Format::Wav => wav::read(bytes).map(drop),
        Format::Flac => packed::flac(bytes).map(drop),
        Format::Mp3 => Ok(()),
        Format::Other => Err(SoundError::Format),
    }
}

/// The samples of a sound, in one channel and `rate` a second. At most `most_seconds` (and a little more:
/// encoders of mp3 add some silence), at least half a second.
///
/// # Errors
/// [`SoundError`].
pub fn decode(bytes: &[u8], rate: u32, most_seconds: u32) -> Result<Vec<f32>, SoundError> {
    let limit = Limit { rate, seconds: most_seconds };
    let mut samples = match checked_format(bytes)? {
        Format::Wav => wav::read(bytes)?.decode(&limit)?,
        Format::Flac => packed::flac(bytes)?.decode(&limit)?,
        Format::Mp3 => packed::mp3(bytes).decode(&limit)?,
        Format::Other => return Err(SoundError::Format),
    };
    if samples.is_empty() {
        return Err(SoundError::Empty);
    }
    let least = (f64::from(rate) * LEAST_SECONDS) as usize;
    if samples.len() < least {
        samples.resize(least, 0.0);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests;

//! From the bytes of a sound file to its samples, in Rust, within bounds.
//!
//! - `wav`: a header and numbers, read here: every length in it is held against the file before anything is
//!   allocated
//! - `packed`: mp3 and flac
//! - `resample`: to as many samples a second as a projector wants, and `sink`: all of it within limits
//!
//! A sound is mixed to one channel and resampled piece by piece while it is decoded: what exists as a whole
//! is the file, and the samples that the projector gets. Where a file says how long it is, that is held
//! against the limit before it is decoded; what is decoded is counted in any case.

mod error;
mod packed;
mod resample;
mod sink;
mod wav;

pub use error::{MOST_BYTES, SoundError};

use sink::Limit;

/// Most seconds of sound in a prompt. The plan of a model that hears counts what they take.
pub const MOST_SECONDS: u32 = 600;

/// Shorter sounds get silence behind them: encoders want some columns of a spectrum before they normalise it.
const LEAST_SECONDS: f64 = 0.5;

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Wav,
    Mp3,
    Flac,
    /// A sound, but none that can be decoded here.
    Other,
}

fn format_of(bytes: &[u8]) -> Option<Format> {
    let at = |from: usize, mark: &[u8]| bytes.get(from..).is_some_and(|rest| rest.starts_with(mark));
    if at(0, b"RIFF") && at(8, b"WAVE") {
        return Some(Format::Wav);
    }
    if at(0, b"fLaC") {
        return Some(Format::Flac);
    }
    // Eleven bits of synchronisation, then any version but the reserved one, and layer III.
    let frame = bytes.len() > 2 && bytes[0] == 0xff && bytes[1] & 0xe6 == 0xe2 && bytes[1] & 0x18 != 0x08;
    if at(0, b"ID3") || frame {
        return Some(Format::Mp3);
    }
    let other = at(0, b"OggS") || at(4, b"ftypM4A") || (at(0, b"FORM") && at(8, b"AIF")) || at(0, b"RF64");
    other.then_some(Format::Other)
}

/// Whether bytes begin like a sound, also like one of a kind that cannot be decoded here.
#[must_use]
pub fn is_sound(bytes: &[u8]) -> bool {
    format_of(bytes).is_some()
}

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

fn checked_format(bytes: &[u8]) -> Result<Format, SoundError> {
    if bytes.len() > MOST_BYTES {
        return Err(SoundError::TooLarge);
    }
    format_of(bytes).ok_or(SoundError::Format)
}

#[cfg(test)]
mod tests;

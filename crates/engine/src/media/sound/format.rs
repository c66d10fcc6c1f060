//! What a sound's file is, by its first bytes.

use super::error::{MOST_BYTES, SoundError};

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
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

/// The format of a sound that is not too large.
///
/// # Errors
/// [`SoundError`].
pub(super) fn checked_format(bytes: &[u8]) -> Result<Format, SoundError> {
    if bytes.len() > MOST_BYTES {
        return Err(SoundError::TooLarge);
    }
    format_of(bytes).ok_or(SoundError::Format)
}

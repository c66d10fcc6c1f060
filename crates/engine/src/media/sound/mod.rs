//! From the bytes of a sound file to its samples, in Rust, within bounds.
//!
//! - `wav`: a header and numbers, read here: every length in it is held against the file before anything is
//!   allocated
//! - `packed`: mp3 and flac
//! - `resample`: to as many samples a second as a projector wants
//!
//! A sound is mixed to one channel and resampled piece by piece while it is decoded: what exists as a whole
//! is the file, and the samples that the projector gets. Where a file says how long it is, that is held
//! against the limit before it is decoded; what is decoded is counted in any case.

mod packed;
mod resample;
mod wav;

use resample::Resampler;

/// Most seconds of sound in a prompt. The plan of a model that hears counts what they take.
pub const MOST_SECONDS: u32 = 600;

/// Larger files are not looked at: ten minutes of a CD are 101 MiB.
pub const MOST_BYTES: usize = 128 << 20;

/// Shorter sounds get silence behind them: encoders want some columns of a spectrum before they normalise it.
const LEAST_SECONDS: f64 = 0.5;

/// Samples a second that files may have.
const RATES: std::ops::RangeInclusive<u32> = 2_000..=384_000;

/// Channels that files may have.
const MOST_CHANNELS: usize = 32;

/// Why a sound cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SoundError {
    /// None of the formats that are known.
    #[error("this is no audio that can be read: wav, mp3 or flac is wanted")]
    Format,
    /// Damaged, cut off, or of a kind that is not supported.
    #[error("the audio cannot be decoded: {0}")]
    Damaged(String),
    /// Longer than may be.
    #[error("the audio is longer than the {most} seconds that can be taken: cut it")]
    TooLong {
        /// Seconds.
        most: u32,
    },
    /// A file that is larger than any that is looked at.
    #[error("the audio file is larger than {} MiB", MOST_BYTES >> 20)]
    TooLarge,
    /// Without any sample.
    #[error("the audio is empty")]
    Empty,
}

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

/// Rates and channels of no sound that anybody has made.
fn check_shape(rate: u32, channels: usize) -> Result<(), SoundError> {
    if !RATES.contains(&rate) {
        return Err(SoundError::Damaged(format!("it has {rate} samples a second")));
    }
    if channels == 0 || channels > MOST_CHANNELS {
        return Err(SoundError::Damaged(format!("it has {channels} channels")));
    }
    Ok(())
}

/// How long a sound may be, and how many samples a second are wanted.
struct Limit {
    rate: u32,
    seconds: u32,
}

impl Limit {
    /// Samples of a sound of `rate` that may be: a quarter of a second more than is said.
    fn samples_at(&self, rate: u32) -> u64 {
        u64::from(rate) * u64::from(self.seconds) + u64::from(rate / 4)
    }

    /// Holds the length that a file says against the limit.
    fn check(&self, frames: u64, rate: u32) -> Result<(), SoundError> {
        if frames > self.samples_at(rate) { Err(self.exceeded()) } else { Ok(()) }
    }

    fn exceeded(&self) -> SoundError {
        SoundError::TooLong { most: self.seconds }
    }
}

/// Takes what was decoded: mixes, resamples, counts.
struct Sink<'a> {
    limit: &'a Limit,
    rate: u32,
    resampler: Resampler,
    /// Frames that came.
    frames: u64,
    mono: Vec<f32>,
    out: Vec<f32>,
}

impl<'a> Sink<'a> {
    /// For a sound of `rate` samples a second and, where that is known, so many frames.
    fn new(limit: &'a Limit, rate: u32, frames: Option<u64>) -> Result<Self, SoundError> {
        limit.check(frames.unwrap_or(0), rate)?;
        let expected = frames.unwrap_or(0) * u64::from(limit.rate) / u64::from(rate.max(1)) + 1;
        let resampler = Resampler::new(rate, limit.rate);
        let out = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
        Ok(Self { limit, rate, resampler, frames: 0, mono: Vec::new(), out })
    }

    /// Frames of `channels` samples each.
    fn push(&mut self, interleaved: impl Iterator<Item = f32>, channels: usize) -> Result<(), SoundError> {
        self.mono.clear();
        let (mut sum, mut taken) = (0.0f32, 0);
        for sample in interleaved {
            // Files of floating-point numbers may hold anything.
            sum += if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
            taken += 1;
            if taken == channels {
                self.mono.push(sum / channels as f32);
                (sum, taken) = (0.0, 0);
            }
        }
        self.frames += self.mono.len() as u64;
        self.limit.check(self.frames, self.rate)?;
        self.resampler.push(&self.mono, &mut self.out);
        Ok(())
    }

    fn finish(mut self) -> Vec<f32> {
        self.resampler.finish(&mut self.out);
        self.out
    }
}

#[cfg(test)]
mod tests;

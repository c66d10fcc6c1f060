//! WAVE files: integers of 8 to 32 bits, floating-point numbers, A-law and µ-law.

use super::SoundError;
use super::sink::{Limit, Sink, check_shape};

/// Frames that are decoded at once.
const PIECE: usize = 4096;

/// How a sample is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    U8,
    I16,
    I24,
    I32,
    F32,
    F64,
    ALaw,
    MuLaw,
}

impl Encoding {
    fn of(tag: u16, bits: u16) -> Option<Self> {
        Some(match (tag, bits) {
            (1, 8) => Self::U8,
            (1, 16) => Self::I16,
            (1, 24) => Self::I24,
            (1, 32) => Self::I32,
            (3, 32) => Self::F32,
            (3, 64) => Self::F64,
            (6, 8) => Self::ALaw,
            (7, 8) => Self::MuLaw,
            _ => return None,
        })
    }

    const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::ALaw | Self::MuLaw => 1,
            Self::I16 => 2,
            Self::I24 => 3,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// A sample of [`Self::bytes`] bytes, −1 to 1 where it is an integer.
    fn sample(self, bytes: &[u8]) -> f32 {
        let four = |bytes: &[u8]| bytes.try_into().map_or([0; 4], |four: [u8; 4]| four);
        match (self, bytes) {
            (Self::U8, [byte]) => (f32::from(*byte) - 128.0) / 128.0,
            (Self::I16, [low, high]) => f32::from(i16::from_le_bytes([*low, *high])) / 32_768.0,
            (Self::I24, [low, middle, high]) => {
                (i32::from_le_bytes([0, *low, *middle, *high]) as f64 / 2_147_483_648.0) as f32
            }
            (Self::I32, bytes) => (f64::from(i32::from_le_bytes(four(bytes))) / 2_147_483_648.0) as f32,
            (Self::F32, bytes) => f32::from_le_bytes(four(bytes)),
            (Self::F64, bytes) => bytes.try_into().map_or(0.0, |eight| f64::from_le_bytes(eight) as f32),
            (Self::ALaw, [byte]) => f32::from(a_law(*byte)) / 32_768.0,
            (Self::MuLaw, [byte]) => f32::from(mu_law(*byte)) / 32_768.0,
            _ => 0.0,
        }
    }
}

/// ITU-T G.711, A-law, to 16 bits.
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte >> 4) & 7, i16::from(byte & 15));
    let value = match exponent {
        0 => (mantissa << 4) + 8,
        _ => ((mantissa << 4) + 0x108) << (exponent - 1),
    };
    if byte & 0x80 == 0 { -value } else { value }
}

/// ITU-T G.711, µ-law, to 16 bits.
fn mu_law(byte: u8) -> i16 {
    let byte = !byte;
    let value = ((i16::from(byte & 15) << 3) + 0x84) << ((byte >> 4) & 7);
    if byte & 0x80 == 0 { value - 0x84 } else { 0x84 - value }
}

/// A header that was understood, and the samples behind it.
#[derive(Debug)]
pub(super) struct Wav<'a> {
    encoding: Encoding,
    channels: usize,
    rate: u32,
    data: &'a [u8],
}

/// Reads the chunks of a file up to its samples.
pub(super) fn read(bytes: &[u8]) -> Result<Wav<'_>, SoundError> {
    let damaged = |why: &str| SoundError::Damaged(why.to_owned());
    let mut rest = bytes.get(12..).unwrap_or_default();
    let mut shape = None;
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, size @ ..] = *head;
        let size = u32::from_le_bytes(size);
        let length = size as usize;
        match &[a, b, c, d] {
            b"fmt " => {
                let chunk = after.get(..length).ok_or_else(|| damaged("its header is cut off"))?;
                shape = Some(format(chunk)?);
            }
            b"data" => {
                let (encoding, channels, rate) =
                    shape.ok_or_else(|| damaged("it does not say how its samples are written"))?;
                // A writer to a pipe does not know the length, and writes this.
                let data = if size == u32::MAX { Some(after) } else { after.get(..length) };
                let data = data.ok_or_else(|| {
                    SoundError::Damaged(format!("it is cut off: {} of {length} bytes are there", after.len()))
                })?;
                if data.len() < encoding.bytes() * channels {
                    return Err(SoundError::Empty);
                }
                return Ok(Wav { encoding, channels, rate, data });
            }
            _ => {}
        }
        // Chunks begin at even places.
        rest = after.get(length.saturating_add(length & 1)..).unwrap_or_default();
    }
    Err(damaged("it has no samples"))
}

/// What a `fmt ` chunk says.
fn format(chunk: &[u8]) -> Result<(Encoding, usize, u32), SoundError> {
    /// The format proper is behind the header.
    const EXTENSIBLE: u16 = 0xfffe;
    let word = |at: usize| match chunk.get(at..at + 2) {
        Some([low, high]) => Ok(u16::from_le_bytes([*low, *high])),
        _ => Err(SoundError::Damaged("its header is cut off".to_owned())),
    };
    let rate = u32::from(word(4)?) | u32::from(word(6)?) << 16;
    let (channels, align, bits) = (usize::from(word(2)?), usize::from(word(12)?), word(14)?);
    let tag = match word(0)? {
        EXTENSIBLE => word(24)?,
        tag => tag,
    };
    let encoding = Encoding::of(tag, bits).ok_or_else(|| {
        SoundError::Damaged(format!("samples of kind {tag} in {bits} bits are not supported"))
    })?;
    check_shape(rate, channels)?;
    if align != encoding.bytes() * channels {
        return Err(SoundError::Damaged(format!("its samples are {align} bytes apart, which cannot be")));
    }
    Ok((encoding, channels, rate))
}

impl Wav<'_> {
    pub fn decode(&self, limit: &Limit) -> Result<Vec<f32>, SoundError> {
        let width = self.encoding.bytes();
        let frame = width * self.channels;
        let frames = self.data.len() / frame;
        let mut sink = Sink::new(limit, self.rate, Some(frames as u64))?;
        for piece in self.data[..frames * frame].chunks(PIECE * frame) {
            let samples = piece.chunks_exact(width).map(|bytes| self.encoding.sample(bytes));
            sink.push(samples, self.channels)?;
        }
        Ok(sink.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g_711_has_the_values_of_the_standard() {
        assert_eq!([0xff, 0x7f, 0x80, 0x00].map(mu_law), [0, 0, 32_124, -32_124]);
        assert_eq!([0xd5, 0x55, 0xaa, 0x2a].map(a_law), [8, -8, 32_256, -32_256]);
    }

    #[test]
    fn every_encoding_has_its_loudest_and_its_silence() {
        for (encoding, silence, loudest) in [
            (Encoding::U8, &[128][..], &[0][..]),
            (Encoding::I16, &[0, 0], &[0, 0x80]),
            (Encoding::I24, &[0, 0, 0], &[0, 0, 0x80]),
            (Encoding::I32, &[0, 0, 0, 0], &[0, 0, 0, 0x80]),
            (Encoding::F32, &[0, 0, 0, 0], &(-1.0f32).to_le_bytes()),
            (Encoding::F64, &[0; 8], &(-1.0f64).to_le_bytes()),
        ] {
            assert_eq!((encoding.sample(silence), encoding.sample(loudest)), (0.0, -1.0), "{encoding:?}");
        }
        assert!((Encoding::I24.sample(&[0xff, 0xff, 0x7f]) - 1.0).abs() < 1e-6);
    }
}

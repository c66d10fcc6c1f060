//! mp3 and flac, by symphonia.
//!
//! It gets the frames alone: tags, pictures and tables of contents, whose lengths it would allocate as a file
//! says them, are left out before. It may panic where a file is damaged in a way that nobody thought of: that
//! becomes an error.

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, ReadOnlySource};
use symphonia::default::codecs::{FlacDecoder, MpaDecoder};
use symphonia::default::formats::{FlacReader, MpaReader};

use super::SoundError;
use super::sink::{Limit, Sink, check_shape};

/// Frames of a file, and what must come before them.
pub(super) struct Packed<'a> {
    kind: Kind,
    head: Vec<u8>,
    frames: &'a [u8],
    /// Samples of a channel, where the file says how many.
    length: Option<u64>,
}

enum Kind {
    Mp3,
    Flac,
}

fn damaged(why: &str) -> SoundError {
    SoundError::Damaged(why.to_owned())
}

/// A flac without its metadata but for what decoders need.
pub(super) fn flac(bytes: &[u8]) -> Result<Packed<'_>, SoundError> {
    const STREAM_INFO: usize = 34;
    let cut = || damaged("its header is cut off");
    let (mut at, mut info) = (4, None);
    loop {
        let [kind, size @ ..] = *bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(cut)?;
        let size = u32::from_be_bytes([0, size[0], size[1], size[2]]) as usize;
        let block = bytes.get(at + 4..at + 4 + size).ok_or_else(cut)?;
        if info.is_none() {
            let is_first = kind & 0x7f == 0 && size == STREAM_INFO;
            info =
                Some(if is_first { block } else { return Err(damaged("it does not begin as a flac does")) });
        }
        at += 4 + size;
        if kind & 0x80 != 0 {
            break;
        }
    }
    let info = info.ok_or_else(cut)?;
    // 20 bits of rate, 3 of channels, 5 of bits in a sample, 36 of length.
    let packed = info.get(10..18).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    let (rate, channels) = ((packed >> 44) as u32, (packed >> 41 & 7) as usize + 1);
    check_shape(rate, channels)?;
    let length = Some(packed & ((1 << 36) - 1)).filter(|length| *length > 0);
    let mut head = b"fLaC\x80\0\0\x22".to_vec();
    head.extend_from_slice(info);
    Ok(Packed { kind: Kind::Flac, head, frames: &bytes[at..], length })
}

/// An mp3 without its tags.
pub(super) fn mp3(bytes: &[u8]) -> Packed<'_> {
    let mut frames = bytes;
    while let Some([b'I', b'D', b'3', _, _, flags, size @ ..]) = frames.first_chunk::<10>() {
        let size = size.iter().fold(0, |size, byte| size << 7 | usize::from(byte & 0x7f));
        let footer = if flags & 0x10 == 0 { 0 } else { 10 };
        frames = frames.get(10 + size + footer..).unwrap_or_default();
    }
    Packed { kind: Kind::Mp3, head: Vec::new(), frames, length: None }
}

impl Packed<'_> {
    pub fn decode(&self, limit: &Limit) -> Result<Vec<f32>, SoundError> {
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decode_frames(limit)));
        decoded.unwrap_or_else(|_| Err(damaged("it is damaged")))
    }

    fn decode_frames(&self, limit: &Limit) -> Result<Vec<f32>, SoundError> {
        let told = |error: Error| match error {
            Error::IoError(_) => damaged("it is cut off"),
            error => SoundError::Damaged(error.to_string()),
        };
        let source = ReadOnlySource::new(Cursor::new(self.head.as_slice()).chain(Cursor::new(self.frames)));
        let source = MediaSourceStream::new(Box::new(source), Default::default());
        let options = FormatOptions::default();
        let mut reader: Box<dyn FormatReader + '_> = match self.kind {
            Kind::Mp3 => Box::new(MpaReader::try_new(source, options).map_err(told)?),
            Kind::Flac => Box::new(FlacReader::try_new(source, options).map_err(told)?),
        };
        let track = reader.default_track(TrackType::Audio).and_then(|track| track.codec_params.clone());
        let Some(CodecParameters::Audio(track)) = track else { return Err(damaged("it has no samples")) };
        let options = AudioDecoderOptions::default();
        let mut decoder: Box<dyn AudioDecoder> = match self.kind {
            Kind::Mp3 => Box::new(MpaDecoder::try_new(&track, &options).map_err(told)?),
            Kind::Flac => Box::new(FlacDecoder::try_new(&track, &options).map_err(told)?),
        };
        let (mut sink, mut samples) = (None, Vec::<f32>::new());
        let mut wrong = None;
        // An mp3 may end within a frame; what came before is good.
        while let Some(packet) = reader.next_packet().ok().flatten() {
            let decoded = match decoder.decode(&packet) {
                Ok(decoded) => decoded,
                // One frame of an mp3 may refer to one that is not there.
                Err(Error::DecodeError(why)) => {
                    wrong = Some(why);
                    continue;
                }
                Err(error) => return Err(told(error)),
            };
            let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
            if sink.is_none() {
                check_shape(rate, channels)?;
                sink = Some((rate, Sink::new(limit, rate, self.length)?));
            }
            let Some((first, sink)) = &mut sink else { continue };
            if rate != *first {
                return Err(damaged("its samples a second change"));
            }
            decoded.copy_to_vec_interleaved(&mut samples);
            sink.push(samples.iter().copied(), channels.max(1))?;
        }
        match (sink, wrong) {
            (Some((_, sink)), _) if self.length.is_some_and(|length| sink.frames < length) => {
                Err(damaged("it is cut off"))
            }
            (Some((_, sink)), _) => Ok(sink.finish()),
            (None, Some(why)) => Err(SoundError::Damaged(why.to_owned())),
            (None, None) => Err(SoundError::Empty),
        }
    }
}

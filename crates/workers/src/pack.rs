//! Frames of data without what the other side has already.
//!
//! ggml describes each tensor in some 300 bytes, the same ones for each token, and the attention mask of a
//! long context is many times a hidden state, nearly all of it zeros. So a frame goes over the link as a
//! block of LZ4, with pieces of the frames before it as a dictionary: what is left is about the hidden
//! states. Weights and hidden states do not get smaller, so large frames are not tried again for a while
//! where one did not.
//!
//! Invariant: both sides note the same pieces of the same frames, in order.

use lz4_flex::block::{compress_with_dict, decompress_with_dict};

/// Longest frame of data, unpacked.
pub const MOST_BYTES: usize = 256 << 10;
/// Bytes of a packed frame before its block: its length unpacked.
const HEAD: usize = 4;
/// Bytes of the beginning and of the end of a frame that are remembered: what describes tensors is there.
const EDGE: usize = 1 << 10;
/// Bytes that are remembered: a few tokens. Each frame costs some microseconds for them.
const MOST_REMEMBERED: usize = 16 << 10;
/// Frames of so many bytes are mostly weights, or hidden states of prompts.
const LARGE: usize = 64 << 10;
/// Most large frames that are not tried after one that did not get smaller.
const MOST_SKIPPED: u32 = 64;
/// A share that has to be saved, for the work to be worth it.
const SHARE: usize = 16;

/// What both sides remember.
#[derive(Debug, Default)]
struct Remembered(Vec<u8>);

impl Remembered {
    fn note(&mut self, frame: &[u8]) {
        let (begin, rest) = frame.split_at(frame.len().min(EDGE));
        self.0.extend_from_slice(begin);
        self.0.extend_from_slice(rest.get(rest.len().saturating_sub(EDGE)..).unwrap_or_default());
        let over = self.0.len().saturating_sub(MOST_REMEMBERED);
        self.0.drain(..over);
    }
}

/// The side that sends.
#[derive(Debug, Default)]
pub struct Packer {
    remembered: Remembered,
    /// Large frames to leave as they are, and how many it was the last time.
    skip: u32,
    skipped: u32,
}

impl Packer {
    /// A frame packed; `None` where it is to be sent as it is.
    pub fn pack(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let packed = if self.tries(frame) { self.smaller(frame) } else { None };
        self.remembered.note(frame);
        packed
    }

    fn tries(&mut self, frame: &[u8]) -> bool {
        let waits = frame.len() >= LARGE && self.skip > 0;
        self.skip -= u32::from(waits);
        !waits
    }

    fn smaller(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let block = compress_with_dict(frame, &self.remembered.0);
        let saves = HEAD + block.len() < frame.len();
        if frame.len() >= LARGE {
            let pays = block.len() <= frame.len() - frame.len() / SHARE;
            self.skipped = if pays { 0 } else { (self.skipped * 2).clamp(1, MOST_SKIPPED) };
            self.skip = self.skipped;
        }
        let length = u32::try_from(frame.len()).ok()?.to_be_bytes();
        saves.then(|| [length.as_slice(), &block].concat())
    }
}

/// The side that receives.
#[derive(Debug, Default)]
pub struct Unpacker(Remembered);

impl Unpacker {
    /// A frame came as it is.
    pub fn plain(&mut self, frame: &[u8]) {
        self.0.note(frame);
    }

    /// A packed frame as it was; `None` for what is none.
    pub fn unpack(&mut self, packed: &[u8]) -> Option<Vec<u8>> {
        let (length, block) = packed.split_at_checked(HEAD)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        if length > MOST_BYTES {
            return None;
        }
        let frame =
            decompress_with_dict(block, length, &self.0.0).ok().filter(|frame| frame.len() == length)?;
        self.0.note(&frame);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that no compression makes fewer, the same for the same seed.
    fn noise(length: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn crossed(packer: &mut Packer, unpacker: &mut Unpacker, frame: &[u8]) -> usize {
        match packer.pack(frame) {
            Some(packed) => {
                assert_eq!(unpacker.unpack(&packed).unwrap(), frame);
                packed.len()
            }
            None => {
                unpacker.plain(frame);
                frame.len()
            }
        }
    }

    #[test]
    fn what_is_the_same_in_each_token_crosses_once() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        let described = noise(313, 1);
        let frame = |token: u64| [described.as_slice(), &noise(16 << 10, token + 10), &described].concat();
        for token in 0..20 {
            let frame = frame(token);
            let bytes = crossed(&mut packer, &mut unpacker, &frame);
            let most = if token == 0 { frame.len() } else { (16 << 10) + 200 };
            assert!(bytes <= most, "token {token}: {bytes} of {}", frame.len());
        }
        let mask = [described.as_slice(), &vec![0; 128 << 10]].concat();
        assert!(crossed(&mut packer, &mut unpacker, &mask) < 1 << 10, "a mask is nearly nothing");
    }

    #[test]
    fn weights_cost_next_to_no_work_and_what_follows_is_packed_again() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        for part in 0..100 {
            assert_eq!(crossed(&mut packer, &mut unpacker, &noise(LARGE, part)), LARGE);
        }
        assert!(packer.skipped == MOST_SKIPPED, "{packer:?}");
        assert!(crossed(&mut packer, &mut unpacker, &[7; 1000]) < 100, "small ones are always tried");
        let zeros = (0..=MOST_SKIPPED).map(|_| crossed(&mut packer, &mut unpacker, &vec![0; LARGE]));
        assert!(zeros.last().unwrap() < 1000);
    }

    #[test]
    fn a_packed_frame_that_is_none_is_refused() {
        let mut unpacker = Unpacker::default();
        for wrong in [&[][..], &[0; 3], &[0xFF; 20], &[0, 4, 0, 1, 0x10, 0], &[0, 0, 0, 9, 0xF0, 1, 2]] {
            assert_eq!(unpacker.unpack(wrong), None, "{wrong:?}");
        }
    }
}

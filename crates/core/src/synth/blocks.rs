//! Random quant blocks, made directly rather than by quantising floats.
//!
//! A [`Pattern`] is a pool of 256 valid blocks of one type whose dequantised values have a given standard
//! deviation and a mean of zero. Block number `n` of a tensor is a pool block with its quants XORed with 64
//! bits; both the choice and the bits come from `rng::at(tensor key, n)`. Quants are uniform, so the XOR
//! keeps their distribution; scales are never touched. That costs little more than a copy, and since
//! `rng::at` never repeats within a tensor, no two quantised blocks of a tensor are equal (for F16 and BF16,
//! where fewer bits may vary, it is merely improbable).
//!
//! Layouts are those of `ggml-common.h`, the meaning of scales that of `dequantize_row_*` in `ggml-quants.c`.

use std::ops::Range;

use super::half::{bf16_bits, f16_bits, f16_value};
use super::rng::{self, Stream};
use crate::gguf::GgmlType;

/// Blocks in a pool: one for each value of the byte that chooses.
const POOL: usize = 256;

/// Elements of F16 and BF16 that are made together.
const FLOATS: usize = 32;

type Fill = fn(&Pattern, u64, u64, &mut [u8]);
type Make = fn(f32, &mut Stream, &mut Vec<u8>);

/// A pool of blocks of one type and scale.
pub(super) struct Pattern {
    unit_bytes: u64,
    /// `POOL` blocks, one after the other.
    pool: Vec<u8>,
    /// For each bit of a block, whether it belongs to a quant and so may be flipped.
    flips: Vec<u8>,
    fill: Fill,
}

impl Pattern {
    /// A pool of blocks whose values have standard deviation `std`; `None` for types that are not generated.
    pub(super) fn new(ty: GgmlType, std: f32, seed: u64) -> Option<Self> {
        let (make, quants, fill): (Make, Range<usize>, Fill) = match ty {
            GgmlType::Q4_0 => (q4_0, 2..18, fill::<18>),
            GgmlType::Q8_0 => (q8_0, 2..34, fill::<34>),
            GgmlType::MXFP4 => (mxfp4, 1..17, fill::<17>),
            GgmlType::Q2_K => (q2_k, 16..80, fill::<84>),
            GgmlType::Q3_K => (q3_k, 0..96, fill::<110>),
            GgmlType::Q4_K => (q4_k, 16..144, fill::<144>),
            GgmlType::Q5_K => (q5_k, 16..176, fill::<176>),
            GgmlType::Q6_K => (q6_k, 0..192, fill::<210>),
            GgmlType::F16 => (f16, 0..0, fill::<64>),
            GgmlType::BF16 => (bf16, 0..0, fill::<64>),
            _ => return None,
        };
        let mut stream = Stream::new(rng::key(seed ^ u64::from(std.to_bits()), ty.name()));
        let mut pool = Vec::new();
        for _ in 0..POOL {
            make(std, &mut stream, &mut pool);
        }
        let unit_bytes = pool.len() / POOL;
        let flips = match ty {
            GgmlType::F16 => [0xff, 0x83].repeat(FLOATS),
            GgmlType::BF16 => [0x7f, 0x80].repeat(FLOATS),
            _ => (0..unit_bytes).map(|at| if quants.contains(&at) { 0xff } else { 0 }).collect(),
        };
        Some(Self { unit_bytes: unit_bytes as u64, pool, flips, fill })
    }

    /// Bytes that are made together: the quant block, or 32 floats.
    pub(super) fn unit_bytes(&self) -> u64 {
        self.unit_bytes
    }

    /// Writes the bytes from `offset` on of the endless content `key`.
    pub(super) fn fill(&self, key: u64, offset: u64, out: &mut [u8]) {
        (self.fill)(self, key, offset, out);
    }
}

fn fill<const B: usize>(pattern: &Pattern, key: u64, offset: u64, out: &mut [u8]) {
    let (pool, _) = pattern.pool.as_chunks::<B>();
    let (Ok(pool), Ok(flips)) =
        (<&[[u8; B]; POOL]>::try_from(pool), <&[u8; B]>::try_from(pattern.flips.as_slice()))
    else {
        // `Pattern::new` pairs each type with its own B.
        return;
    };
    let (flip_words, flip_tail) = flips.as_chunks::<8>();
    fill_units::<B>(offset, out, |index, block| {
        let bits = rng::at(key, index);
        let [.., choice] = bits.to_le_bytes();
        let (words, tail) = pool[usize::from(choice)].as_chunks::<8>();
        let (out_words, out_tail) = block.as_chunks_mut::<8>();
        for ((out, word), flip) in out_words.iter_mut().zip(words).zip(flip_words) {
            *out = (u64::from_le_bytes(*word) ^ (bits & u64::from_le_bytes(*flip))).to_le_bytes();
        }
        for (((out, byte), flip), bit) in out_tail.iter_mut().zip(tail).zip(flip_tail).zip(bits.to_le_bytes())
        {
            *out = byte ^ (bit & flip);
        }
    });
}

/// Calls `make` for each unit of `B` bytes that the range touches and cuts the first and last one to fit.
pub(super) fn fill_units<const B: usize>(offset: u64, out: &mut [u8], make: impl Fn(u64, &mut [u8; B])) {
    let mut index = offset / B as u64;
    let skip = (offset % B as u64) as usize;
    let mut rest = out;
    let mut scratch = [0; B];
    if skip > 0 {
        make(index, &mut scratch);
        let taken = rest.len().min(B - skip);
        let (head, tail) = rest.split_at_mut(taken);
        head.copy_from_slice(&scratch[skip..skip + taken]);
        rest = tail;
        index += 1;
    }
    let (units, tail) = rest.as_chunks_mut::<B>();
    for unit in units {
        make(index, unit);
        index += 1;
    }
    if !tail.is_empty() {
        make(index, &mut scratch);
        tail.copy_from_slice(&scratch[..tail.len()]);
    }
}

/// The standard deviation of an integer uniform over `levels` neighbouring values.
fn uniform_std(levels: f32) -> f32 {
    ((levels * levels - 1.0) / 12.0).sqrt()
}

/// `count` scales uniform in `low..=high`, and the root mean square of that distribution.
fn scales<const N: usize>(low: u8, high: u8, stream: &mut Stream) -> ([u8; N], f32) {
    let squares: f32 = (low..=high).map(|scale| f32::from(scale).powi(2)).sum();
    let count = f32::from(high - low) + 1.0;
    let span = u32::from(high - low) + 1;
    (std::array::from_fn(|_| low + stream.below(span) as u8), (squares / count).sqrt())
}

/// Like [`scales`], half of them negative: their quants have a mean of -1/2 that must not become the weights'
/// mean.
fn signed_scales<const N: usize>(low: u8, high: u8, stream: &mut Stream) -> ([i8; N], f32) {
    let (magnitudes, rms) = scales::<N>(low, high, stream);
    (magnitudes.map(|scale| if stream.chance(0.5) { -(scale as i8) } else { scale as i8 }), rms)
}

fn quants(count: usize, stream: &mut Stream, out: &mut Vec<u8>) {
    out.extend((0..count).map(|_| stream.next() as u8));
}

/// `d`, and the `dmin` that puts the mean of `d·sc·q − dmin·sc` at zero for `q` uniform in `0..levels`.
fn scale_and_min(d: f32, levels: f32, out: &mut Vec<u8>) {
    let d = f16_bits(d);
    out.extend(d.to_le_bytes());
    out.extend(f16_bits(f16_value(d) * (levels - 1.0) / 2.0).to_le_bytes());
}

fn q4_0(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    let sign = if stream.chance(0.5) { -1.0 } else { 1.0 };
    out.extend(f16_bits(sign * std / uniform_std(16.0)).to_le_bytes());
    quants(16, stream, out);
}

fn q8_0(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    let sign = if stream.chance(0.5) { -1.0 } else { 1.0 };
    out.extend(f16_bits(sign * std / uniform_std(256.0)).to_le_bytes());
    quants(32, stream, out);
}

fn mxfp4(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    // Mean square of the sixteen values of `kvalues_mxfp4`: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
    const MEAN_SQUARE: f32 = (1 + 4 + 9 + 16 + 36 + 64 + 144) as f32 / 8.0;
    // The scale is 2^(e − 128): `GGML_E8M0_TO_FP32_HALF`.
    let exponent = octave(std / MEAN_SQUARE.sqrt(), stream) + 128;
    out.push(exponent.clamp(2, 254) as u8);
    quants(16, stream, out);
}

fn q2_k(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    let (scales, rms) = scales::<16>(8, 15, stream);
    out.extend(scales.map(|scale| scale | (scale << 4)));
    quants(64, stream, out);
    scale_and_min(std / (uniform_std(4.0) * rms), 4.0, out);
}

fn q3_k(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    quants(96, stream, out);
    let (scales, rms) = signed_scales::<16>(8, 31, stream);
    let mut packed = [0_u8; 12];
    for (at, scale) in scales.into_iter().enumerate() {
        let scale = (scale + 32) as u8;
        packed[at % 8] |= (scale & 0xf) << (4 * (at / 8));
        packed[8 + at % 4] |= (scale >> 4) << (2 * (at / 4));
    }
    out.extend(packed);
    out.extend(f16_bits(std / (uniform_std(8.0) * rms)).to_le_bytes());
}

/// The twelve bytes that hold eight 6-bit scales and the same eight numbers as 6-bit mins
/// (`get_scale_min_k4`).
fn packed_scales(scales: [u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for at in 0..4 {
        let (low, high) = (scales[at], scales[at + 4]);
        packed[at] = low | ((high >> 4) << 6);
        packed[at + 4] = low | ((high >> 4) << 6);
        packed[at + 8] = (high & 0xf) | ((high & 0xf) << 4);
    }
    packed
}

fn q4_k(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    let (scales, rms) = scales::<8>(32, 63, stream);
    scale_and_min(std / (uniform_std(16.0) * rms), 16.0, out);
    out.extend(packed_scales(scales));
    quants(128, stream, out);
}

fn q5_k(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    let (scales, rms) = scales::<8>(32, 63, stream);
    scale_and_min(std / (uniform_std(32.0) * rms), 32.0, out);
    out.extend(packed_scales(scales));
    quants(160, stream, out);
}

fn q6_k(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    quants(192, stream, out);
    // Small scales keep the half-precision d of wide matrices out of the coarse subnormals.
    let (scales, rms) = signed_scales::<16>(16, 31, stream);
    out.extend(scales.map(|scale| scale as u8));
    out.extend(f16_bits(std / (uniform_std(64.0) * rms)).to_le_bytes());
}

fn f16(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    for _ in 0..FLOATS {
        out.extend(f16_bits(octave_float(std, stream)).to_le_bytes());
    }
}

fn bf16(std: f32, stream: &mut Stream, out: &mut Vec<u8>) {
    for _ in 0..FLOATS {
        out.extend(bf16_bits(octave_float(std, stream)).to_le_bytes());
    }
}

/// A number whose mantissa and sign are uniform, so that flipping their bits changes nothing but the number.
fn octave_float(std: f32, stream: &mut Stream) -> f32 {
    // The mean square over 1..2 is 7/3.
    let magnitude = (octave(std / (7.0_f32 / 3.0).sqrt(), stream) as f32).exp2();
    let sign = if stream.chance(0.5) { -1.0 } else { 1.0 };
    // Truncated to seven bits of mantissa: exact in both formats, and flips may not round up an octave.
    sign * magnitude * (1.0 + stream.below(128) as f32 / 128.0)
}

/// One of the two neighbouring exponents `e` whose `4^e`, in the mix drawn here, average to `scale²`.
fn octave(scale: f32, stream: &mut Stream) -> i32 {
    let low = scale.log2().floor();
    let excess = (scale / low.exp2()).powi(2);
    low as i32 + i32::from(stream.chance((excess - 1.0) / 3.0))
}

#[cfg(test)]
mod tests;

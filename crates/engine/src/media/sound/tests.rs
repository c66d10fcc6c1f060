//! Sounds of all kinds, good and bad, in bounds.

use super::*;
use hypura_core::synth;
use proptest::prelude::*;

const RATE: u32 = 16_000;

fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut out = name.to_vec();
    out.extend((content.len() as u32).to_le_bytes());
    out.extend(content);
    out.resize(out.len().next_multiple_of(2), 0);
    out
}

fn header(tag: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
    let align = channels.wrapping_mul(bits / 8);
    let mut out = tag.to_le_bytes().to_vec();
    out.extend(channels.to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend(rate.wrapping_mul(u32::from(align)).to_le_bytes());
    out.extend(align.to_le_bytes());
    out.extend(bits.to_le_bytes());
    out
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let content = [b"WAVE".to_vec(), chunks.concat()].concat();
    chunk(b"RIFF", &content)
}

fn wav(channels: u16, rate: u32, samples: &[i16]) -> Vec<u8> {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    riff(&[chunk(b"fmt ", &header(1, channels, rate, 16)), chunk(b"data", &bytes)])
}

fn message(result: Result<Vec<f32>, SoundError>) -> String {
    result.expect_err("refused").to_string()
}

#[test]
fn a_wave_of_the_wanted_rate_is_taken_as_it_is() {
    let samples: Vec<i16> = (0..16_000).map(|at| (at * 7 % 20_000 - 10_000) as i16).collect();
    let decoded = decode(&wav(1, RATE, &samples), RATE, 10).unwrap();
    let expected: Vec<f32> = samples.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    assert_eq!(decoded, expected);
    assert!(probe(&wav(1, RATE, &samples)).is_ok());
}

#[test]
fn channels_are_mixed_and_other_rates_resampled() {
    let stereo: Vec<i16> = (0..32_000).flat_map(|_| [12_000, -4_000]).collect();
    let decoded = decode(&wav(2, 32_000, &stereo), RATE, 10).unwrap();
    assert_eq!(decoded.len(), 16_000);
    let middle = decoded[8_000];
    assert!((middle - 4_000.0 / 32_768.0).abs() < 1e-3, "{middle}");
}

#[test]
fn chunks_beside_the_samples_are_passed_over_and_extensible_headers_read() {
    let mut extended = header(0xfffe, 1, RATE, 32);
    extended.extend([22, 0, 32, 0, 4, 0, 0, 0, 3, 0]);
    extended.extend([0; 14]);
    let samples: Vec<u8> = (0..16_000).flat_map(|_| 0.25_f32.to_le_bytes()).collect();
    let file = riff(&[chunk(b"LIST", b"odd"), chunk(b"fmt ", &extended), chunk(b"data", &samples)]);
    assert_eq!(decode(&file, RATE, 10).unwrap(), vec![0.25; 16_000]);
    // A writer into a pipe, which does not know how much will come.
    let mut streamed = wav(1, RATE, &[5; 16_000]);
    streamed[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&streamed, RATE, 10).unwrap().len(), 16_000);
}

#[test]
fn numbers_that_are_none_are_silence_and_loud_ones_are_cut() {
    let numbers = [f32::NAN, f32::INFINITY, 1e30, -1e30, 0.5];
    let samples: Vec<u8> = numbers.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let file = riff(&[chunk(b"fmt ", &header(3, 1, RATE, 32)), chunk(b"data", &samples)]);
    assert_eq!(decode(&file, RATE, 10).unwrap()[..5], [0.0, 0.0, 1.0, -1.0, 0.5]);
}

#[test]
fn short_sounds_get_silence_behind_them() {
    for count in [1, 2, 100] {
        let decoded = decode(&wav(1, RATE, &vec![9; count]), RATE, 10).unwrap();
        assert_eq!(decoded.len(), 8_000);
        assert!(decoded[0] > 0.0 && decoded[count..].iter().all(|sample| *sample == 0.0));
    }
}

#[test]
fn hostile_waves_are_errors_and_nothing_large_is_allocated_for_them() {
    let good = wav(1, RATE, &[1; 1000]);
    assert!(message(decode(&good[..good.len() - 500], RATE, 10)).contains("cut off"));
    assert!(message(decode(&good[..30], RATE, 10)).contains("cut off"));
    assert!(message(decode(&good[..12], RATE, 10)).contains("no samples"));
    let mut huge = good.clone();
    huge[40..44].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    assert!(message(decode(&huge, RATE, 10)).contains("4294967280"));
    assert_eq!(decode(&wav(1, RATE, &[]), RATE, 10), Err(SoundError::Empty));
    let with = |format: Vec<u8>| {
        let file = riff(&[chunk(b"fmt ", &format), chunk(b"data", &[0; 64])]);
        assert_eq!(probe(&file).map(|()| Vec::new()), decode(&file, RATE, 10));
        message(decode(&file, RATE, 10))
    };
    assert!(with(header(1, 0, RATE, 16)).contains("0 channels"));
    assert!(with(header(1, 60_000, RATE, 16)).contains("60000 channels"));
    for rate in [0, 1, u32::MAX] {
        assert!(with(header(1, 1, rate, 16)).contains("samples a second"));
    }
    assert!(with(header(1, 1, RATE, 12)).contains("12 bits"));
    assert!(with(header(0x55, 1, RATE, 16)).contains("not supported"));
    let mut apart = header(1, 1, RATE, 16);
    apart[12..14].copy_from_slice(&9_u16.to_le_bytes());
    assert!(with(apart).contains("9 bytes apart"));
    let headless = riff(&[chunk(b"data", &[0; 64])]);
    assert!(message(decode(&headless, RATE, 10)).contains("how its samples"));
    for other in [&b"hello, this is no sound"[..], b"", b"OggS\0\x02", b"\0\0\0\x20ftypM4A ", b"ID3", b"fLaC"]
    {
        assert!(decode(other, RATE, 10).is_err() && decode(other, RATE, 10) == decode(other, RATE, 10));
    }
    assert_eq!(decode(b"OggS\0\x02", RATE, 10), Err(SoundError::Format));
    assert!(is_sound(b"OggS") && !is_sound(b"\x89PNG") && !is_sound(b"\xff\xd8\xff\xe0") && !is_sound(b"BM"));
}

#[test]
fn long_sounds_are_refused_before_they_are_decoded_and_while_they_are() {
    let two_seconds = wav(1, 8_000, &[1; 16_000]);
    assert!(decode(&two_seconds, RATE, 2).is_ok());
    let refused = message(decode(&two_seconds, RATE, 1));
    assert!(refused.contains("longer than the 1 seconds"), "{refused}");
    // An mp3 says nothing of its length beforehand.
    assert!(matches!(decode(&silent_mp3(100), RATE, 1), Err(SoundError::TooLong { most: 1 })));
    assert!(decode(&silent_mp3(30), RATE, 1).is_ok());
    let mut said = flac(&[1; 4096]);
    // 2³⁶ − 1 samples, which would be for ever.
    said[21] |= 0x0f;
    said[22..26].copy_from_slice(&[0xff; 4]);
    assert!(matches!(decode(&said, RATE, 600), Err(SoundError::TooLong { most: 600 })));
    assert_eq!(decode(&vec![0; MOST_BYTES + 1], RATE, 1), Err(SoundError::TooLarge));
}

/// Frames of silence: 128 kbit/s, 44,100 samples a second, one channel.
fn silent_mp3(frames: usize) -> Vec<u8> {
    let mut frame = vec![0; 417];
    frame[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0xc4]);
    // Tags before it, of a length that is a multiple of nothing.
    let mut file = b"ID3\x04\0\0\0\0\0\x07seventy".to_vec();
    file.truncate(17);
    file.extend(frame.repeat(frames));
    file
}

#[test]
fn an_mp3_is_decoded_without_its_tags() {
    let decoded = decode(&silent_mp3(40), 44_100, 10).unwrap();
    // The first frames of a decoder may be left out.
    assert!(decoded.len().abs_diff(40 * 1152) <= 2 * 1152, "{}", decoded.len());
    assert!(decoded.iter().all(|sample| sample.abs() < 1e-4));
    for end in [10, 17, 200, 500] {
        let _ = decode(&silent_mp3(3)[..end], RATE, 10);
    }
    assert!(message(decode(&silent_mp3(3)[..100], RATE, 10)).contains("cut off"));
    assert!(decode(b"ID3\x04\0\0\x7f\x7f\x7f\x7f", RATE, 10).is_err());
}

/// A flac of one channel in 16 bits, 16,000 samples a second, whose samples are written as they are.
fn flac(samples: &[i16]) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let mut file = b"fLaC\0\0\0\x22".to_vec();
    file.extend((BLOCK as u16).to_be_bytes().repeat(2));
    file.extend([0; 6]);
    let packed = u64::from(RATE) << 44 | 15 << 36 | samples.len() as u64;
    file.extend(packed.to_be_bytes());
    file.extend([0; 16]);
    // A block of tags that claims a tag of 4 GiB, which nobody reads.
    file.extend(*b"\x84\0\0\x0c");
    file.extend([0, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    for (number, block) in samples.chunks(BLOCK).enumerate() {
        // Size in 16 bits behind the number; the rate of the stream; one channel; 16 bits.
        let mut frame = vec![0xff, 0xf8, 0x70, 0x08, number as u8];
        frame.extend((block.len() as u16 - 1).to_be_bytes());
        frame.push(crc(&frame, 0x07, 8) as u8);
        frame.push(2);
        frame.extend(block.iter().flat_map(|sample| sample.to_be_bytes()));
        frame.extend(crc(&frame, 0x8005, 16).to_be_bytes());
        file.extend(frame);
    }
    file
}

fn crc(bytes: &[u8], polynomial: u16, bits: u32) -> u16 {
    let (top, mask) = (1_u32 << (bits - 1), (1_u32 << bits) - 1);
    let step = |crc: u32| (if crc & top == 0 { crc << 1 } else { crc << 1 ^ u32::from(polynomial) }) & mask;
    bytes.iter().fold(0, |crc, byte| {
        let crc = crc ^ u32::from(*byte) << (bits - 8);
        (0..8).fold(crc, |crc, _| step(crc))
    }) as u16
}

#[test]
fn a_flac_is_decoded_exactly_and_its_tags_are_not_read() {
    let samples: Vec<i16> = (0..20_000).map(|at| ((at as f32 * 0.05).sin() * 20_000.0) as i16).collect();
    let decoded = decode(&flac(&samples), RATE, 10).unwrap();
    let expected: Vec<f32> = samples.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    assert_eq!(decoded, expected);
    let whole = flac(&samples);
    assert!(message(decode(&whole[..whole.len() - 9_000], RATE, 10)).contains("cut off"));
    assert!(message(decode(&whole[..20], RATE, 10)).contains("cut off"));
}

#[test]
fn the_synthetic_sounds_are_tones_that_differ() {
    let (one, two) = (synth::sound(1, 1.0), synth::sound(2, 1.0));
    let one = decode(&one, RATE, 10).unwrap();
    assert_eq!(one.len(), 16_000);
    assert_ne!(one, decode(&two, RATE, 10).unwrap());
    let loud = one.iter().map(|sample| sample * sample).sum::<f32>() / one.len() as f32;
    assert!(loud > 0.05, "{loud}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever becomes of it, it ends, in bounds.
    #[test]
    fn mutated_sounds_never_panic(
        kind in 0..3_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        early in prop::collection::vec((0..64_usize, any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let tone: Vec<i16> = (0..3_000).map(|at| (at * 31 % 9_001) as i16).collect();
        let mut file = match kind {
            0 => wav(2, 22_050, &tone),
            1 => silent_mp3(8),
            _ => flac(&tone),
        };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        for (at, byte) in early {
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let _ = probe(&file);
        if let Ok(samples) = decode(&file, RATE, 5) {
            prop_assert!(samples.len() >= 8_000 && samples.len() <= 6 * RATE as usize);
            prop_assert!(samples.iter().all(|sample| sample.is_finite() && sample.abs() < 4.0));
        }
    }
}

//! Dequantises generated blocks (after `dequantize_row_*` of `ggml-quants.c`) and looks at their statistics.

use std::collections::HashSet;

use super::*;
use crate::synth::half::f16_value;

const TYPES: [GgmlType; 10] = [
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q8_0,
    GgmlType::Q4_0,
    GgmlType::MXFP4,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
];

fn half_at(block: &[u8], at: usize) -> f32 {
    f16_value(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// `get_scale_min_k4`.
fn scale_and_min_k4(at: usize, packed: &[u8]) -> (f32, f32) {
    let (scale, min) = if at < 4 {
        (packed[at] & 63, packed[at + 4] & 63)
    } else {
        (
            (packed[at + 4] & 0xf) | ((packed[at - 4] >> 6) << 4),
            (packed[at + 4] >> 4) | ((packed[at] >> 6) << 4),
        )
    };
    (f32::from(scale), f32::from(min))
}

fn dequantised(ty: GgmlType, block: &[u8]) -> Vec<f32> {
    match ty {
        GgmlType::F16 => (0..32).map(|i| half_at(block, 2 * i)).collect(),
        GgmlType::BF16 => {
            block.chunks(2).map(|b| f32::from_bits(u32::from_le_bytes([0, 0, b[0], b[1]]))).collect()
        }
        GgmlType::Q8_0 => block[2..].iter().map(|&q| half_at(block, 0) * f32::from(q as i8)).collect(),
        GgmlType::Q4_0 => {
            let nibbles = block[2..].iter().map(|q| q & 0xf).chain(block[2..].iter().map(|q| q >> 4));
            nibbles.map(|q| half_at(block, 0) * (f32::from(q) - 8.0)).collect()
        }
        GgmlType::MXFP4 => {
            let values = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];
            let scale = (f32::from(block[0]) - 128.0).exp2();
            let nibbles = block[1..].iter().map(|q| q & 0xf).chain(block[1..].iter().map(|q| q >> 4));
            let sign = |q: u8| if q < 8 { scale } else { -scale };
            nibbles.map(|q| sign(q) * values[usize::from(q & 7)]).collect()
        }
        GgmlType::Q2_K => q2_k_values(block),
        GgmlType::Q3_K => q3_k_values(block),
        GgmlType::Q4_K => (0..256)
            .map(|i| {
                let (sub, byte) = (i / 32, block[16 + i / 64 * 32 + i % 32]);
                let q = if sub % 2 == 0 { byte & 0xf } else { byte >> 4 };
                let (scale, min) = scale_and_min_k4(sub, &block[4..16]);
                half_at(block, 0) * scale * f32::from(q) - half_at(block, 2) * min
            })
            .collect(),
        GgmlType::Q5_K => (0..256)
            .map(|i| {
                let (sub, byte) = (i / 32, block[48 + i / 64 * 32 + i % 32]);
                let low = if sub % 2 == 0 { byte & 0xf } else { byte >> 4 };
                let q = low | (((block[16 + i % 32] >> sub) & 1) << 4);
                let (scale, min) = scale_and_min_k4(sub, &block[4..16]);
                half_at(block, 0) * scale * f32::from(q) - half_at(block, 2) * min
            })
            .collect(),
        GgmlType::Q6_K => (0..256)
            .map(|i| {
                let (part, quarter, column) = (i / 128, i % 128 / 32, i % 32);
                let byte = block[part * 64 + quarter % 2 * 32 + column];
                let low = if quarter < 2 { byte & 0xf } else { byte >> 4 };
                let high = (block[128 + part * 32 + column] >> (2 * quarter)) & 3;
                let scale = block[192 + part * 8 + column / 16 + 2 * quarter] as i8;
                half_at(block, 208) * f32::from(scale) * (f32::from(low | (high << 4)) - 32.0)
            })
            .collect(),
        other => panic!("{other} is not generated"),
    }
}

fn q2_k_values(block: &[u8]) -> Vec<f32> {
    let value = |i: usize| {
        let (part, step, column) = (i / 128, i % 128 / 32, i % 32);
        let q = (block[16 + part * 32 + column] >> (2 * step)) & 3;
        let scale = block[part * 8 + step * 2 + column / 16];
        half_at(block, 80) * f32::from(scale & 0xf) * f32::from(q)
            - half_at(block, 82) * f32::from(scale >> 4)
    };
    (0..256).map(value).collect()
}

fn q3_k_values(block: &[u8]) -> Vec<f32> {
    let scale = |at: usize| {
        let low = (block[96 + at % 8] >> (4 * (at / 8))) & 0xf;
        let high = (block[104 + at % 4] >> (2 * (at / 4))) & 3;
        f32::from(low | (high << 4)) - 32.0
    };
    let value = |i: usize| {
        let (part, step, column) = (i / 128, i % 128 / 32, i % 32);
        let low = (block[32 + part * 32 + column] >> (2 * step)) & 3;
        let high = (block[column] >> (part * 4 + step)) & 1;
        let q = f32::from(low) - if high == 1 { 0.0 } else { 4.0 };
        half_at(block, 108) * scale(part * 8 + step * 2 + column / 16) * q
    };
    (0..256).map(value).collect()
}

#[test]
fn values_have_the_asked_deviation_and_no_mean() {
    for ty in TYPES {
        for std in [1.0, 0.02, 1.0 / (28_672.0_f32).sqrt()] {
            let pattern = Pattern::new(ty, std, 1).unwrap();
            let unit = pattern.unit_bytes() as usize;
            let mut bytes = vec![0; unit * 4096];
            pattern.fill(42, 0, &mut bytes);
            let values: Vec<f64> =
                bytes.chunks(unit).flat_map(|block| dequantised(ty, block)).map(f64::from).collect();
            assert!(values.iter().all(|value| value.is_finite()), "{ty}");
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count / f64::from(std);
            let rms = (values.iter().map(|v| v * v).sum::<f64>() / count).sqrt() / f64::from(std);
            assert!(mean.abs() < 0.03, "{ty} std {std}: mean {mean}");
            assert!((rms - 1.0).abs() < 0.04, "{ty} std {std}: rms {rms}");
        }
    }
}

#[test]
fn units_are_whole_blocks() {
    for ty in TYPES {
        let unit = Pattern::new(ty, 1.0, 0).unwrap().unit_bytes();
        let floats = matches!(ty, GgmlType::F16 | GgmlType::BF16);
        assert_eq!(unit, if floats { ty.block_bytes() * 32 } else { ty.block_bytes() }, "{ty}");
    }
    assert!(Pattern::new(GgmlType::IQ2_XXS, 1.0, 0).is_none());
}

#[test]
fn no_two_quant_blocks_are_equal() {
    for ty in TYPES.into_iter().filter(|ty| !matches!(ty, GgmlType::F16 | GgmlType::BF16)) {
        let pattern = Pattern::new(ty, 0.02, 1).unwrap();
        let unit = pattern.unit_bytes() as usize;
        let mut bytes = vec![0; unit * 100_000];
        pattern.fill(7, 0, &mut bytes);
        assert_eq!(bytes.chunks(unit).collect::<HashSet<_>>().len(), 100_000, "{ty}");
    }
}

#[test]
fn ranges_do_not_depend_on_where_they_are_cut() {
    for ty in TYPES {
        let pattern = Pattern::new(ty, 0.02, 1).unwrap();
        let mut whole = vec![0; 2000];
        pattern.fill(9, 0, &mut whole);
        for (start, end) in
            [(0, 1), (1, 2), (5, 9), (17, 1999), (63, 64), (64, 640), (500, 500), (1990, 2000)]
        {
            let mut part = vec![0; end - start];
            pattern.fill(9, start as u64, &mut part);
            assert_eq!(part, whole[start..end], "{ty} {start}..{end}");
        }
    }
}

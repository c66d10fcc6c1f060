//! 16-bit floats as bits: just enough to write scales.

/// The nearest IEEE half; magnitudes beyond 65504 become 65504.
pub(super) fn f16_bits(value: f32) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    let bits = if magnitude < 1.0 / 16_384.0 {
        // Subnormal: multiples of 2^-24. Rounding up to 1024 gives the smallest normal number's bits.
        (magnitude * 16_777_216.0).round() as u32
    } else {
        // The exponent's bias changes from 127 to 15; a carry out of the mantissa rightly raises the
        // exponent.
        (magnitude.to_bits() + 0x1000 - (112 << 23)) >> 13
    };
    sign | bits.min(0x7bff) as u16
}

/// The value of an IEEE half that is neither infinite nor NaN.
pub(super) fn f16_value(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let magnitude = u32::from(bits & 0x7fff);
    if magnitude < 0x400 {
        sign * magnitude as f32 / 16_777_216.0
    } else {
        sign * f32::from_bits((magnitude << 13) + (112 << 23))
    }
}

/// The brain float towards zero.
pub(super) fn bf16_bits(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_round_trips() {
        for bits in (0..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(f16_bits(f16_value(bits)), bits, "{bits:#06x}");
        }
    }

    #[test]
    fn halves_round_to_the_nearest() {
        assert_eq!(f16_bits(1.0), 0x3c00);
        assert_eq!(f16_bits(-2.0), 0xc000);
        assert_eq!(f16_bits(1.0 + 0.9 / 1024.0), 0x3c01);
        assert_eq!(f16_bits(1.0 + 0.4 / 1024.0), 0x3c00);
        assert_eq!(f16_bits(6.0e-8), 0x0001);
        assert_eq!(f16_bits(1.0e9), 0x7bff);
    }

    #[test]
    fn brain_floats_are_the_upper_half() {
        assert_eq!(bf16_bits(1.0), 0x3f80);
        assert_eq!(bf16_bits(-1.5), 0xbfc0);
    }
}

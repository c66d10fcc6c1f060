//! Which quantisation each tensor of a synthetic model gets.
//!
//! Owns the `--quant` names and the rule that turns one of them into a [`GgmlType`] for each tensor. The
//! rules are those of llama.cpp's quantiser where they decide sizes; where it would need a type that is not
//! generated here, the nearest smaller or equal-precision type is taken.

use std::fmt;
use std::str::FromStr;

use crate::gguf::GgmlType;

/// A file-wide quantisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names by which people know the quantisations")]
pub enum Quant {
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    BF16,
    /// 8 bits, blocks of 32.
    Q8_0,
    /// 4 bits, blocks of 32.
    Q4_0,
    /// 4-bit floats for routed experts (or the FFN of a dense model), everything else `Q8_0`.
    MXFP4,
    /// 2 bits, blocks of 256.
    Q2_K,
    /// 3 bits, blocks of 256.
    Q3_K,
    /// 4 bits, blocks of 256, the same type for every weight matrix but the output.
    Q4_K,
    /// 5 bits, blocks of 256, likewise.
    Q5_K,
    /// 6 bits, blocks of 256, likewise.
    Q6_K,
    /// `Q4_K` with `Q6_K` for the down projections and attention values of some layers: two size classes.
    Q4_K_M,
    /// `Q5_K` with `Q6_K` in the same places.
    Q5_K_M,
}

/// What a tensor is, as far as its type depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TensorClass {
    /// Norms, biases, routers, sinks: always F32.
    Plain,
    Embedding,
    Output,
    Attention,
    AttentionValue,
    /// Gate and up of a dense layer or a shared expert.
    Ffn,
    FfnDown,
    /// Gate and up of the routed experts.
    Experts,
    ExpertsDown,
}

impl Quant {
    /// Every quantisation, in the order in which help texts list them.
    pub const ALL: &'static [Self] = &[
        Self::Q4_K,
        Self::Q4_K_M,
        Self::Q5_K,
        Self::Q5_K_M,
        Self::Q6_K,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_0,
        Self::MXFP4,
        Self::F16,
        Self::BF16,
    ];

    /// The name by which it is chosen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::MXFP4 => "MXFP4",
            Self::Q2_K => "Q2_K",
            Self::Q3_K => "Q3_K",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
            Self::Q4_K_M => "Q4_K_M",
            Self::Q5_K_M => "Q5_K_M",
        }
    }

    /// `general.file_type`: `enum llama_ftype` of `llama.h`.
    pub(super) const fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q2_K => 10,
            Self::Q3_K => 11,
            Self::Q4_K => 14,
            Self::Q4_K_M => 15,
            Self::Q5_K => 16,
            Self::Q5_K_M => 17,
            Self::Q6_K => 18,
            Self::BF16 => 32,
            Self::MXFP4 => 38,
        }
    }

    /// The type of most weight matrices.
    const fn base(self) -> GgmlType {
        match self {
            Self::F16 => GgmlType::F16,
            Self::BF16 => GgmlType::BF16,
            Self::Q8_0 | Self::MXFP4 => GgmlType::Q8_0,
            Self::Q4_0 => GgmlType::Q4_0,
            Self::Q2_K => GgmlType::Q2_K,
            Self::Q3_K => GgmlType::Q3_K,
            Self::Q4_K | Self::Q4_K_M => GgmlType::Q4_K,
            Self::Q5_K | Self::Q5_K_M => GgmlType::Q5_K,
            Self::Q6_K => GgmlType::Q6_K,
        }
    }

    /// The type of a tensor whose rows have `row` elements, in layer `layer` of `layers`.
    pub(super) fn type_of(
        self,
        class: TensorClass,
        row: u64,
        layer: u32,
        layers: u32,
        experts: bool,
    ) -> GgmlType {
        use TensorClass::{AttentionValue, Experts, ExpertsDown, Ffn, FfnDown, Output, Plain};
        let wanted = match (self, class) {
            (_, Plain) => return GgmlType::F32,
            (Self::MXFP4, Experts | ExpertsDown) => GgmlType::MXFP4,
            (Self::MXFP4, Ffn | FfnDown) if !experts => GgmlType::MXFP4,
            (Self::Q4_K_M | Self::Q5_K_M, AttentionValue | FfnDown | ExpertsDown)
                if deserves_more_bits(layer, layers) =>
            {
                GgmlType::Q6_K
            }
            (_, Output) if self.base().block_elements() == 256 => GgmlType::Q6_K,
            _ => self.base(),
        };
        fitting(wanted, row)
    }
}

/// The layers that llama.cpp's `*_M` mixtures give more bits: the first and last eighth and every third
/// between (`use_more_bits` of `llama-quant.cpp`).
const fn deserves_more_bits(layer: u32, layers: u32) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

/// `wanted`, or the type that takes its place when a row is not whole blocks of it (2880 columns of gpt-oss,
/// 128 of an MLA head).
fn fitting(wanted: GgmlType, row: u64) -> GgmlType {
    let substitute = match wanted {
        GgmlType::Q2_K | GgmlType::Q3_K | GgmlType::Q4_K => GgmlType::Q4_0,
        GgmlType::Q5_K | GgmlType::Q6_K => GgmlType::Q8_0,
        _ => GgmlType::F16,
    };
    [wanted, substitute]
        .into_iter()
        .find(|ty| row.is_multiple_of(ty.block_elements()))
        .unwrap_or(GgmlType::F16)
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No quantisation has this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown quantisation \"{0}\": choose one of {list}", list = Quant::ALL.iter().map(|quant| quant.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownQuant(pub String);

impl FromStr for Quant {
    type Err = UnknownQuant;

    /// Names are taken in any case; `Q4_K_S` and `Q5_K_S` are other names of the pure mixtures.
    fn from_str(text: &str) -> Result<Self, UnknownQuant> {
        let name = text.to_ascii_uppercase();
        let name = name.strip_suffix("_S").unwrap_or(&name);
        Self::ALL
            .iter()
            .copied()
            .find(|quant| quant.name() == name)
            .ok_or_else(|| UnknownQuant(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_in_any_case() {
        for &quant in Quant::ALL {
            assert_eq!(quant.name().parse::<Quant>().unwrap(), quant);
            assert_eq!(quant.name().to_lowercase().parse::<Quant>().unwrap(), quant);
        }
        assert_eq!("q4_k_s".parse::<Quant>().unwrap(), Quant::Q4_K);
        let error = "Q7_K".parse::<Quant>().unwrap_err().to_string();
        assert!(error.contains("Q7_K") && error.contains("MXFP4"), "{error}");
    }

    #[test]
    fn rows_that_are_not_whole_blocks_get_a_smaller_block() {
        let ty = |quant: Quant, row| quant.type_of(TensorClass::Experts, row, 0, 36, true);
        assert_eq!(ty(Quant::Q4_K, 2880), GgmlType::Q4_0);
        assert_eq!(ty(Quant::Q6_K, 2880), GgmlType::Q8_0);
        assert_eq!(ty(Quant::MXFP4, 2880), GgmlType::MXFP4);
        assert_eq!(ty(Quant::Q4_K, 2816), GgmlType::Q4_K);
        assert_eq!(ty(Quant::Q4_K, 33), GgmlType::F16);
    }

    #[test]
    fn mixtures_have_two_sizes_of_down_projections() {
        let types: Vec<_> = (0..4)
            .map(|layer| Quant::Q4_K_M.type_of(TensorClass::ExpertsDown, 512, layer, 4, true))
            .collect();
        assert_eq!(types, [GgmlType::Q4_K, GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q6_K]);
        assert_eq!(Quant::Q4_K_M.type_of(TensorClass::Experts, 512, 3, 4, true), GgmlType::Q4_K);
    }

    #[test]
    fn mxfp4_is_for_experts_or_for_dense_ffns() {
        let ty = |class, experts| Quant::MXFP4.type_of(class, 256, 0, 4, experts);
        assert_eq!(ty(TensorClass::Experts, true), GgmlType::MXFP4);
        assert_eq!(ty(TensorClass::Ffn, true), GgmlType::Q8_0);
        assert_eq!(ty(TensorClass::Ffn, false), GgmlType::MXFP4);
        assert_eq!(ty(TensorClass::Output, true), GgmlType::Q8_0);
        assert_eq!(ty(TensorClass::Plain, true), GgmlType::F32);
    }
}

//! The models that can be synthesised: names and dimensions.
//!
//! The `tiny-*` shapes have the same architecture and the same structural features (leading dense layers,
//! shared experts, sinks, biases, head sizes that do not follow from the embedding) at a few megabytes; their
//! matrices are multiples of 256 wide so that K-quants work, except where the real model's are not.

use super::dims::Dims;
use super::{real, tiny};
use std::fmt;
use std::str::FromStr;

/// A model whose form can be synthesised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named for the models; see `Shape::name`")]
pub enum Shape {
    Mixtral8x7b,
    Llama70b,
    Llama70bDraft,
    Qwen2_5_14b,
    Qwen3_30bA3b,
    GptOss120b,
    KimiK2,
    Gemma4E2b,
    Gemma4E4b,
    Qwen3_8FlashNext,
    DeepSeekV4_1Flash,
    TinyMixtral,
    TinyLlama,
    TinyQwen2,
    TinyQwen2Vl,
    TinyGemma3,
    TinyQwen3Moe,
    TinyGptOss,
    TinyKimiK2,
    TinyGemma4,
    TinyQwen4Exp,
    TinyDeepSeek41,
}

impl Shape {
    /// Every shape, the big ones first.
    pub const ALL: &'static [Self] = &[
        Self::Mixtral8x7b,
        Self::Llama70b,
        Self::Llama70bDraft,
        Self::Qwen2_5_14b,
        Self::Qwen3_30bA3b,
        Self::GptOss120b,
        Self::KimiK2,
        Self::Gemma4E2b,
        Self::Gemma4E4b,
        Self::Qwen3_8FlashNext,
        Self::DeepSeekV4_1Flash,
        Self::TinyMixtral,
        Self::TinyLlama,
        Self::TinyQwen2,
        Self::TinyQwen2Vl,
        Self::TinyGemma3,
        Self::TinyQwen3Moe,
        Self::TinyGptOss,
        Self::TinyKimiK2,
        Self::TinyGemma4,
        Self::TinyQwen4Exp,
        Self::TinyDeepSeek41,
    ];

    /// The name by which it is chosen.
    pub const fn name(self) -> &'static str {
        self.dims().name
    }

    /// The quantisation in which the model is usually met.
    pub const fn usual_quant(self) -> super::Quant {
        match self {
            Self::GptOss120b | Self::TinyGptOss => super::Quant::MXFP4,
            Self::Mixtral8x7b => super::Quant::Q5_K,
            _ => super::Quant::Q4_K,
        }
    }

    pub(super) const fn dims(self) -> &'static Dims {
        match self {
            Self::Mixtral8x7b => &real::MIXTRAL,
            Self::Llama70b => &real::LLAMA,
            Self::Llama70bDraft => &real::LLAMA_DRAFT,
            Self::Qwen2_5_14b => &real::QWEN2,
            Self::Qwen3_30bA3b => &real::QWEN3_MOE,
            Self::GptOss120b => &real::GPT_OSS,
            Self::KimiK2 => &real::KIMI,
            Self::Gemma4E2b => &real::GEMMA4_E2B,
            Self::Gemma4E4b => &real::GEMMA4_E4B,
            Self::Qwen3_8FlashNext => &real::QWEN4EXP,
            Self::DeepSeekV4_1Flash => &real::DEEPSEEK41,
            Self::TinyMixtral => &tiny::TINY_MIXTRAL,
            Self::TinyLlama => &tiny::TINY_LLAMA,
            Self::TinyQwen2 => &tiny::TINY_QWEN2,
            Self::TinyQwen2Vl => &tiny::TINY_QWEN2_VL,
            Self::TinyGemma3 => &tiny::TINY_GEMMA3,
            Self::TinyQwen3Moe => &tiny::TINY_QWEN3_MOE,
            Self::TinyGptOss => &tiny::TINY_GPT_OSS,
            Self::TinyKimiK2 => &tiny::TINY_KIMI,
            Self::TinyGemma4 => &tiny::TINY_GEMMA4,
            Self::TinyQwen4Exp => &tiny::TINY_QWEN4EXP,
            Self::TinyDeepSeek41 => &tiny::TINY_DEEPSEEK41,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No shape has this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown shape \"{0}\": choose one of {list}", list = Shape::ALL.iter().map(|shape| shape.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownShape(pub String);

impl FromStr for Shape {
    type Err = UnknownShape;

    fn from_str(text: &str) -> Result<Self, UnknownShape> {
        let name = text.to_ascii_lowercase();
        Self::ALL
            .iter()
            .copied()
            .find(|shape| shape.name() == name)
            .ok_or_else(|| UnknownShape(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_round_trip() {
        for &shape in Shape::ALL {
            assert_eq!(shape.name().parse::<Shape>().unwrap(), shape);
        }
        let error = "gpt-5".parse::<Shape>().unwrap_err().to_string();
        assert!(error.contains("gpt-5") && error.contains("tiny-kimi-k2"), "{error}");
    }
}

//! The models that can be synthesised: names and dimensions.
//!
//! Dimensions are those of the published `config.json` of each model. The `tiny-*` shapes have the same
//! architecture and the same structural features (leading dense layers, shared experts, sinks, biases, head
//! sizes that do not follow from the embedding) at a few megabytes; their matrices are multiples of 256 wide
//! so that K-quants work, except where the real model's are not.

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
    TinyMixtral,
    TinyLlama,
    TinyQwen2,
    TinyQwen2Vl,
    TinyGemma3,
    TinyQwen3Moe,
    TinyGptOss,
    TinyKimiK2,
    TinyGemma4,
}

/// The architectures of llama.cpp that shapes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Llama,
    Qwen2,
    Qwen2Vl,
    Gemma3,
    Qwen3Moe,
    GptOss,
    DeepSeek2,
    Gemma4,
}

/// Dimensions of multi-head latent attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latent {
    pub query_rank: u64,
    pub kv_rank: u64,
    /// Part of a key head without position.
    pub nope_len: u64,
    /// Part of a key head with position.
    pub rope_len: u64,
    pub value_len: u64,
}

/// Experts of each MoE layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Experts {
    pub count: u64,
    pub used: u32,
    pub shared: u64,
    pub ffn: u64,
    pub leading_dense: u32,
}

/// What small models of Gemma 4 have beside others: an embedding of each token for each layer, and layers
/// that use the keys and values of earlier ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct PerLayer {
    /// Numbers of a token's embedding in one layer.
    pub embedding: u64,
    /// Of so many layers one sees the whole context, the last.
    pub period: u32,
    /// Length of a head in layers that do.
    pub global_head_len: u64,
    /// Layers at the end without keys and values of their own.
    pub shared_kv_layers: u32,
    /// Whether these have a feed-forward network of twice the size.
    pub wide_ffn: bool,
}

/// Everything that distinguishes one shape from another.
#[derive(Debug)]
pub(super) struct Dims {
    pub name: &'static str,
    pub title: &'static str,
    pub size_label: &'static str,
    pub architecture: Architecture,
    pub vocab: u64,
    pub layers: u32,
    pub embedding: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_len: u64,
    /// Inner size of a dense FFN.
    pub ffn: u64,
    pub experts: Option<Experts>,
    pub latent: Option<Latent>,
    pub per_layer: Option<PerLayer>,
    pub context: u32,
    /// Sliding window of every second layer.
    pub window: Option<u32>,
    pub rope_base: f32,
    pub rms_eps: f32,
    /// Whether RoPE frequencies are stretched as in Llama 3.1 (`rope_freqs.weight`).
    pub llama3_rope: bool,
}

const MIXTRAL: Dims = Dims {
    name: "mixtral-8x7b",
    title: "Mixtral 8x7B",
    size_label: "8x7B",
    architecture: Architecture::Llama,
    vocab: 32_000,
    layers: 32,
    embedding: 4096,
    heads: 32,
    kv_heads: 8,
    head_len: 128,
    ffn: 14_336,
    experts: Some(Experts { count: 8, used: 2, shared: 0, ffn: 14_336, leading_dense: 0 }),
    latent: None,
    per_layer: None,
    context: 32_768,
    window: None,
    rope_base: 1e6,
    rms_eps: 1e-5,
    llama3_rope: false,
};

const LLAMA: Dims = Dims {
    name: "llama-70b",
    title: "Llama 3.1 70B",
    size_label: "70B",
    vocab: 128_256,
    layers: 80,
    embedding: 8192,
    heads: 64,
    ffn: 28_672,
    experts: None,
    context: 131_072,
    rope_base: 5e5,
    llama3_rope: true,
    ..MIXTRAL
};

/// A draft model for [`LLAMA`] cut to a tenth of its layers: a fortieth of its size.
const LLAMA_DRAFT: Dims = Dims {
    name: "llama-70b-draft",
    title: "Llama 3.1 70B draft",
    size_label: "0.2B",
    layers: 16,
    embedding: 512,
    heads: 8,
    kv_heads: 2,
    head_len: 64,
    ffn: 1536,
    ..LLAMA
};

const QWEN2: Dims = Dims {
    name: "qwen2.5-14b",
    title: "Qwen2.5 14B",
    size_label: "14B",
    architecture: Architecture::Qwen2,
    vocab: 152_064,
    layers: 48,
    embedding: 5120,
    heads: 40,
    ffn: 13_824,
    experts: None,
    rms_eps: 1e-6,
    ..MIXTRAL
};

const QWEN3_MOE: Dims = Dims {
    name: "qwen3-30b-a3b",
    title: "Qwen3 30B A3B",
    size_label: "30B-A3B",
    architecture: Architecture::Qwen3Moe,
    vocab: 151_936,
    layers: 48,
    embedding: 2048,
    kv_heads: 4,
    ffn: 6144,
    experts: Some(Experts { count: 128, used: 8, shared: 0, ffn: 768, leading_dense: 0 }),
    context: 40_960,
    rms_eps: 1e-6,
    ..MIXTRAL
};

const GPT_OSS: Dims = Dims {
    name: "gpt-oss-120b",
    title: "gpt-oss 120B",
    size_label: "120B",
    architecture: Architecture::GptOss,
    vocab: 201_088,
    layers: 36,
    embedding: 2880,
    heads: 64,
    head_len: 64,
    ffn: 2880,
    experts: Some(Experts { count: 128, used: 4, shared: 0, ffn: 2880, leading_dense: 0 }),
    context: 131_072,
    window: Some(128),
    rope_base: 150_000.0,
    ..MIXTRAL
};

const KIMI: Dims = Dims {
    name: "kimi-k2",
    title: "Kimi K2",
    size_label: "384x14B",
    architecture: Architecture::DeepSeek2,
    vocab: 163_840,
    layers: 61,
    embedding: 7168,
    heads: 64,
    kv_heads: 64,
    ffn: 18_432,
    experts: Some(Experts { count: 384, used: 8, shared: 1, ffn: 2048, leading_dense: 1 }),
    latent: Some(Latent { query_rank: 1536, kv_rank: 512, nope_len: 128, rope_len: 64, value_len: 128 }),
    context: 131_072,
    rope_base: 50_000.0,
    rms_eps: 1e-6,
    ..MIXTRAL
};

const GEMMA4_E2B: Dims = Dims {
    name: "gemma4-e2b",
    title: "Gemma 4 E2B",
    size_label: "E2B",
    architecture: Architecture::Gemma4,
    vocab: 262_144,
    layers: 35,
    embedding: 1536,
    heads: 8,
    kv_heads: 1,
    head_len: 256,
    ffn: 6144,
    experts: None,
    per_layer: Some(PerLayer {
        embedding: 256,
        period: 5,
        global_head_len: 512,
        shared_kv_layers: 20,
        wide_ffn: true,
    }),
    context: 131_072,
    window: Some(512),
    rope_base: 1e6,
    rms_eps: 1e-6,
    ..MIXTRAL
};

const GEMMA4_E4B: Dims = Dims {
    name: "gemma4-e4b",
    title: "Gemma 4 E4B",
    size_label: "E4B",
    layers: 42,
    embedding: 2560,
    kv_heads: 2,
    ffn: 10_240,
    per_layer: Some(PerLayer {
        embedding: 256,
        period: 6,
        global_head_len: 512,
        shared_kv_layers: 18,
        wide_ffn: false,
    }),
    ..GEMMA4_E2B
};

/// What the tiny shapes share; everything else is their big sister's.
const TINY: Dims = Dims {
    size_label: "tiny",
    vocab: 2048,
    layers: 4,
    embedding: 256,
    heads: 4,
    kv_heads: 2,
    head_len: 64,
    ffn: 512,
    context: 4096,
    ..MIXTRAL
};

const TINY_MIXTRAL: Dims = Dims {
    name: "tiny-mixtral",
    title: "tiny Mixtral",
    experts: Some(Experts { count: 8, used: 2, shared: 0, ffn: 512, leading_dense: 0 }),
    ..TINY
};

const TINY_LLAMA: Dims = Dims {
    name: "tiny-llama",
    title: "tiny Llama",
    ffn: 768,
    experts: None,
    rope_base: 5e5,
    llama3_rope: true,
    ..TINY
};

const TINY_QWEN2: Dims = Dims {
    name: "tiny-qwen2",
    title: "tiny Qwen2",
    architecture: Architecture::Qwen2,
    ffn: 768,
    experts: None,
    rms_eps: 1e-6,
    ..TINY
};

const TINY_QWEN2_VL: Dims = Dims {
    name: "tiny-qwen2-vl",
    title: "tiny Qwen2-VL",
    architecture: Architecture::Qwen2Vl,
    rope_base: 1e6,
    ..TINY_QWEN2
};

const TINY_GEMMA3: Dims = Dims {
    name: "tiny-gemma3",
    title: "tiny Gemma 3",
    architecture: Architecture::Gemma3,
    ffn: 768,
    experts: None,
    rope_base: 1e6,
    rms_eps: 1e-6,
    ..TINY
};

const TINY_QWEN3_MOE: Dims = Dims {
    name: "tiny-qwen3-moe",
    title: "tiny Qwen3 MoE",
    architecture: Architecture::Qwen3Moe,
    head_len: 128,
    experts: Some(Experts { count: 16, used: 4, shared: 0, ffn: 256, leading_dense: 0 }),
    rms_eps: 1e-6,
    ..TINY
};

const TINY_GPT_OSS: Dims = Dims {
    name: "tiny-gpt-oss",
    title: "tiny gpt-oss",
    architecture: Architecture::GptOss,
    heads: 8,
    ffn: 256,
    experts: Some(Experts { count: 16, used: 4, shared: 0, ffn: 256, leading_dense: 0 }),
    window: Some(32),
    rope_base: 150_000.0,
    ..TINY
};

const TINY_KIMI: Dims = Dims {
    name: "tiny-kimi-k2",
    title: "tiny Kimi K2",
    architecture: Architecture::DeepSeek2,
    kv_heads: 4,
    experts: Some(Experts { count: 16, used: 4, shared: 1, ffn: 256, leading_dense: 1 }),
    latent: Some(Latent { query_rank: 256, kv_rank: 256, nope_len: 128, rope_len: 64, value_len: 128 }),
    rope_base: 50_000.0,
    rms_eps: 1e-6,
    ..TINY
};

const TINY_GEMMA4: Dims = Dims {
    name: "tiny-gemma4",
    title: "tiny Gemma 4",
    architecture: Architecture::Gemma4,
    layers: 6,
    kv_heads: 1,
    experts: None,
    per_layer: Some(PerLayer {
        embedding: 128,
        period: 3,
        global_head_len: 128,
        shared_kv_layers: 3,
        wide_ffn: true,
    }),
    window: Some(32),
    rope_base: 1e6,
    rms_eps: 1e-6,
    ..TINY
};

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
        Self::TinyMixtral,
        Self::TinyLlama,
        Self::TinyQwen2,
        Self::TinyQwen2Vl,
        Self::TinyGemma3,
        Self::TinyQwen3Moe,
        Self::TinyGptOss,
        Self::TinyKimiK2,
        Self::TinyGemma4,
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
            Self::Mixtral8x7b => &MIXTRAL,
            Self::Llama70b => &LLAMA,
            Self::Llama70bDraft => &LLAMA_DRAFT,
            Self::Qwen2_5_14b => &QWEN2,
            Self::Qwen3_30bA3b => &QWEN3_MOE,
            Self::GptOss120b => &GPT_OSS,
            Self::KimiK2 => &KIMI,
            Self::Gemma4E2b => &GEMMA4_E2B,
            Self::Gemma4E4b => &GEMMA4_E4B,
            Self::TinyMixtral => &TINY_MIXTRAL,
            Self::TinyLlama => &TINY_LLAMA,
            Self::TinyQwen2 => &TINY_QWEN2,
            Self::TinyQwen2Vl => &TINY_QWEN2_VL,
            Self::TinyGemma3 => &TINY_GEMMA3,
            Self::TinyQwen3Moe => &TINY_QWEN3_MOE,
            Self::TinyGptOss => &TINY_GPT_OSS,
            Self::TinyKimiK2 => &TINY_KIMI,
            Self::TinyGemma4 => &TINY_GEMMA4,
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

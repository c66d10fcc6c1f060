//! Dimensions of real models: those of the published `config.json` of each.

use super::dims::{Architecture, Dims, Engram, Experts, Form, Hybrid, Latent, NGram, PerLayer};

pub(super) const MIXTRAL: Dims = Dims {
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
    form: Form::Usual,
    context: 32_768,
    window: None,
    rope_base: 1e6,
    rms_eps: 1e-5,
    llama3_rope: false,
};

pub(super) const LLAMA: Dims = Dims {
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
pub(super) const LLAMA_DRAFT: Dims = Dims {
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

pub(super) const QWEN2: Dims = Dims {
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

pub(super) const QWEN3_MOE: Dims = Dims {
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

pub(super) const GPT_OSS: Dims = Dims {
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

pub(super) const KIMI: Dims = Dims {
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

pub(super) const GEMMA4_E2B: Dims = Dims {
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
    form: Form::PerLayer(E2B),
    context: 131_072,
    window: Some(512),
    rope_base: 1e6,
    rms_eps: 1e-6,
    ..MIXTRAL
};

pub(super) const GEMMA4_E4B: Dims = Dims {
    name: "gemma4-e4b",
    title: "Gemma 4 E4B",
    size_label: "E4B",
    layers: 42,
    embedding: 2560,
    kv_heads: 2,
    ffn: 10_240,
    form: Form::PerLayer(E4B),
    ..GEMMA4_E2B
};

pub(super) const QWEN4EXP: Dims = Dims {
    name: "qwen3.8-flash-next",
    title: "Qwen3.8 Flash Next",
    size_label: "176B-A6B",
    architecture: Architecture::Qwen4Exp,
    vocab: 248_320,
    layers: 48,
    embedding: 2560,
    heads: 24,
    kv_heads: 2,
    head_len: 256,
    ffn: 640,
    experts: Some(Experts { count: 512, used: 10, shared: 1, ffn: 640, leading_dense: 0 }),
    form: Form::Hybrid(FLASH_NEXT),
    context: 262_144,
    rope_base: 1e7,
    rms_eps: 1e-6,
    ..MIXTRAL
};

pub(super) const DEEPSEEK41: Dims = Dims {
    name: "deepseek-v4.1-flash",
    title: "DeepSeek V4.1 Flash",
    size_label: "384x14B",
    architecture: Architecture::DeepSeek41,
    vocab: 129_280,
    layers: 40,
    embedding: 5120,
    heads: 64,
    kv_heads: 1,
    head_len: 512,
    ffn: 2304,
    experts: Some(Experts { count: 384, used: 6, shared: 1, ffn: 2304, leading_dense: 0 }),
    form: Form::Engram(FLASH),
    context: 1_048_576,
    window: Some(128),
    rope_base: 10_000.0,
    rms_eps: 1e-6,
    ..MIXTRAL
};

/// Gemma 4 E2B.
pub(super) const E2B: PerLayer =
    PerLayer { embedding: 256, period: 5, global_head_len: 512, shared_kv_layers: 20, wide_ffn: true };
/// Gemma 4 E4B.
const E4B: PerLayer = PerLayer { period: 6, shared_kv_layers: 18, wide_ffn: false, ..E2B };
/// Qwen3.8-Flash-Next: 16 rows of 320 million a token.
pub(super) const FLASH_NEXT: Hybrid = Hybrid {
    streams: 4,
    rank: 320,
    period: 4,
    state_len: 128,
    key_heads: 16,
    value_heads: 48,
    indexer_heads: 4,
    indexer_len: 128,
    indexer_top_k: 2048,
    indexer_block: 16,
    ngrams: NGram {
        longest: 3,
        heads_per_length: 8,
        head_len: 160,
        head_rows: 20_000_000,
        modules: 1,
        is_cut: true,
    },
};

/// DeepSeek-V4.1-Flash: 24 rows of 384 million for each of two layers a token.
pub(super) const FLASH: Engram = Engram {
    streams: 4,
    query_rank: 1280,
    rope_len: 64,
    output_groups: 8,
    output_rank: 1024,
    indexer_heads: 32,
    indexer_len: 128,
    indexer_top_k: 512,
    ngrams: NGram {
        longest: 4,
        heads_per_length: 8,
        head_len: 256,
        head_rows: 16_000_000,
        modules: 2,
        is_cut: true,
    },
};

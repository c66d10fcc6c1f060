//! Dimensions of the tiny shapes: the structure of their big sisters in a few megabytes.

use super::dims::{Architecture, Dims, Engram, Experts, Form, Hybrid, Latent, NGram, PerLayer};
use super::real::{E2B, FLASH, FLASH_NEXT, MIXTRAL};

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

pub(super) const TINY_MIXTRAL: Dims = Dims {
    name: "tiny-mixtral",
    title: "tiny Mixtral",
    experts: Some(Experts { count: 8, used: 2, shared: 0, ffn: 512, leading_dense: 0 }),
    ..TINY
};

pub(super) const TINY_LLAMA: Dims = Dims {
    name: "tiny-llama",
    title: "tiny Llama",
    ffn: 768,
    experts: None,
    rope_base: 5e5,
    llama3_rope: true,
    ..TINY
};

pub(super) const TINY_QWEN2: Dims = Dims {
    name: "tiny-qwen2",
    title: "tiny Qwen2",
    architecture: Architecture::Qwen2,
    ffn: 768,
    experts: None,
    rms_eps: 1e-6,
    ..TINY
};

pub(super) const TINY_QWEN2_VL: Dims = Dims {
    name: "tiny-qwen2-vl",
    title: "tiny Qwen2-VL",
    architecture: Architecture::Qwen2Vl,
    rope_base: 1e6,
    ..TINY_QWEN2
};

pub(super) const TINY_GEMMA3: Dims = Dims {
    name: "tiny-gemma3",
    title: "tiny Gemma 3",
    architecture: Architecture::Gemma3,
    ffn: 768,
    experts: None,
    rope_base: 1e6,
    rms_eps: 1e-6,
    ..TINY
};

pub(super) const TINY_QWEN3_MOE: Dims = Dims {
    name: "tiny-qwen3-moe",
    title: "tiny Qwen3 MoE",
    architecture: Architecture::Qwen3Moe,
    head_len: 128,
    experts: Some(Experts { count: 16, used: 4, shared: 0, ffn: 256, leading_dense: 0 }),
    rms_eps: 1e-6,
    ..TINY
};

pub(super) const TINY_GPT_OSS: Dims = Dims {
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

pub(super) const TINY_KIMI: Dims = Dims {
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

pub(super) const TINY_GEMMA4: Dims = Dims {
    name: "tiny-gemma4",
    title: "tiny Gemma 4",
    architecture: Architecture::Gemma4,
    layers: 6,
    kv_heads: 1,
    experts: None,
    form: Form::PerLayer(GEMMA4_TINY),
    window: Some(32),
    rope_base: 1e6,
    rms_eps: 1e-6,
    ..TINY
};

pub(super) const TINY_QWEN4EXP: Dims = Dims {
    name: "tiny-qwen4exp",
    title: "tiny Qwen3.8 Flash Next",
    architecture: Architecture::Qwen4Exp,
    ffn: 256,
    experts: Some(Experts { count: 16, used: 4, shared: 1, ffn: 256, leading_dense: 0 }),
    form: Form::Hybrid(HYBRID_TINY),
    rope_base: 1e7,
    rms_eps: 1e-6,
    ..TINY
};

pub(super) const TINY_DEEPSEEK41: Dims = Dims {
    name: "tiny-deepseek41",
    title: "tiny DeepSeek V4.1",
    architecture: Architecture::DeepSeek41,
    kv_heads: 1,
    ffn: 256,
    experts: Some(Experts { count: 12, used: 4, shared: 1, ffn: 256, leading_dense: 0 }),
    form: Form::Engram(ENGRAM_TINY),
    window: Some(32),
    rope_base: 10_000.0,
    rms_eps: 1e-6,
    ..TINY
};

/// Of a tiny model.
const GEMMA4_TINY: PerLayer =
    PerLayer { embedding: 128, period: 3, global_head_len: 128, shared_kv_layers: 3, ..E2B };

/// Of a tiny model: 4 rows of 8,000.
const HYBRID_TINY: Hybrid = Hybrid {
    rank: 32,
    key_heads: 2,
    value_heads: 4,
    indexer_len: 64,
    indexer_top_k: 16,
    indexer_block: 4,
    ngrams: NGram { heads_per_length: 2, head_len: 64, head_rows: 2000, ..FLASH_NEXT.ngrams },
    ..FLASH_NEXT
};

/// Of a tiny model: 4 rows of 8,000 for each of two layers.
const ENGRAM_TINY: Engram = Engram {
    query_rank: 256,
    rope_len: 32,
    output_groups: 2,
    output_rank: 128,
    indexer_heads: 2,
    indexer_len: 64,
    indexer_top_k: 8,
    ngrams: NGram {
        longest: 3,
        heads_per_length: 2,
        head_len: 64,
        head_rows: 2000,
        modules: 2,
        is_cut: true,
    },
    ..FLASH
};

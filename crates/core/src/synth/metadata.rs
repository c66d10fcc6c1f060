//! The metadata that llama.cpp requires of each architecture.
//!
//! Keys are those of `LLM_KV_NAMES` in `llama-arch.cpp`; which ones an architecture needs is in
//! `llama_model_base::load_hparams` and each `load_arch_hparams`.

use super::dims::{Architecture, Dims, Experts, Form, Latent};
use super::keys::Keys;
use super::quant::Quant;
use super::{deepseek41, gemma4, qwen4exp, vocab};
use crate::gguf::Metadata;

/// `general.quantization_version`: `GGML_QNT_VERSION`.
const QUANTIZATION_VERSION: u32 = 2;

/// How the name of every synthetic model ends: its routers are random, and a prediction must know.
pub const SYNTHETIC_NAME: &str = " (synthetic)";

/// How many times YaRN stretches the original context of gpt-oss and Kimi K2.
const YARN_FACTOR: f32 = 32.0;
const YARN_ORIGINAL_CONTEXT: u32 = 4096;

/// `LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID` of `llama-hparams.h`.
const GATING_SIGMOID: u32 = 2;

impl Architecture {
    /// The name in `general.architecture`, which is also the prefix of its keys.
    const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen2Vl => "qwen2vl",
            Self::Gemma3 => "gemma3",
            Self::Qwen3Moe => "qwen3moe",
            Self::GptOss => "gpt-oss",
            Self::DeepSeek2 => "deepseek2",
            Self::Gemma4 => "gemma4",
            Self::Qwen4Exp => "qwen4exp",
            Self::DeepSeek41 => "deepseek41",
        }
    }
}

/// All metadata of a model but those of shards and alignment.
pub(super) fn of(dims: &Dims, layers: u32, quant: Quant, seed: u64) -> Metadata {
    let mut metadata = Metadata::new();
    general(&mut metadata, dims, quant, seed);
    let mut keys = Keys::new(dims.architecture.name(), &mut metadata);
    common(&mut keys, dims, layers);
    match dims.latent {
        Some(latent) => latent_attention(&mut keys, latent),
        None => grouped_attention(&mut keys, dims),
    }
    match dims.form {
        Form::Usual => {}
        Form::PerLayer(per_layer) => gemma4::describe(&mut keys, dims, per_layer, layers),
        Form::Hybrid(hybrid) => qwen4exp::describe(&mut keys, dims, hybrid, layers),
        Form::Engram(engram) => deepseek41::describe(&mut keys, dims, engram, layers),
    }
    if let Some(experts) = dims.experts {
        mixture(&mut keys, dims.architecture, experts);
    }
    if let Some(window) = dims.window {
        keys.set("attention.sliding_window", window);
    }
    if matches!(dims.architecture, Architecture::GptOss | Architecture::DeepSeek2) {
        yarn(&mut keys, dims.architecture);
    }
    vocab::describe(&mut metadata, dims);
    metadata
}

fn general(metadata: &mut Metadata, dims: &Dims, quant: Quant, seed: u64) {
    metadata.insert("general.architecture", dims.architecture.name());
    metadata.insert("general.type", "model");
    metadata.insert("general.name", format!("{}{SYNTHETIC_NAME}", dims.title));
    metadata.insert(
        "general.description",
        format!("Random weights in the shape of {}, seed {seed}.", dims.title),
    );
    metadata.insert("general.size_label", dims.size_label);
    metadata.insert("general.quantization_version", QUANTIZATION_VERSION);
    metadata.insert("general.file_type", quant.file_type());
}

fn common(keys: &mut Keys<'_>, dims: &Dims, layers: u32) {
    keys.set("block_count", layers);
    keys.set("context_length", dims.context);
    keys.set("embedding_length", dims.embedding as u32);
    keys.set("feed_forward_length", dims.ffn as u32);
    keys.set("vocab_size", dims.vocab as u32);
    keys.set("rope.freq_base", dims.rope_base);
    keys.set("attention.layer_norm_rms_epsilon", dims.rms_eps);
    keys.set("attention.head_count", dims.heads as u32);
}

fn grouped_attention(keys: &mut Keys<'_>, dims: &Dims) {
    keys.set("attention.head_count_kv", dims.kv_heads as u32);
    keys.set("attention.key_length", dims.head_len as u32);
    keys.set("attention.value_length", dims.head_len as u32);
    keys.set("rope.dimension_count", dims.head_len as u32);
    if dims.architecture == Architecture::Qwen2Vl {
        // Pairs of a head for time, height and width, in the proportion of Qwen2-VL's 16, 24, 24.
        let quarter = dims.head_len as i32 / 8;
        keys.set("rope.dimension_sections", vec![quarter, quarter * 3 / 2, quarter * 3 / 2, 0]);
    }
}

/// The cache holds one latent vector (and the positional part of the key) for all heads, so llama.cpp sees
/// multi-query attention; the `_mla` lengths are those of the heads it stands for.
fn latent_attention(keys: &mut Keys<'_>, latent: Latent) {
    keys.set("attention.head_count_kv", 1_u32);
    keys.set("attention.q_lora_rank", latent.query_rank as u32);
    keys.set("attention.kv_lora_rank", latent.kv_rank as u32);
    keys.set("attention.key_length", (latent.kv_rank + latent.rope_len) as u32);
    keys.set("attention.value_length", latent.kv_rank as u32);
    keys.set("attention.key_length_mla", (latent.nope_len + latent.rope_len) as u32);
    keys.set("attention.value_length_mla", latent.value_len as u32);
    keys.set("rope.dimension_count", latent.rope_len as u32);
}

fn mixture(keys: &mut Keys<'_>, architecture: Architecture, experts: Experts) {
    keys.set("expert_count", experts.count as u32);
    keys.set("expert_used_count", experts.used);
    if architecture != Architecture::Llama {
        keys.set("expert_feed_forward_length", experts.ffn as u32);
    }
    if architecture == Architecture::DeepSeek2 {
        keys.set("leading_dense_block_count", experts.leading_dense);
        keys.set("expert_shared_count", experts.shared as u32);
        keys.set("expert_group_count", 1_u32);
        keys.set("expert_group_used_count", 1_u32);
        keys.set("expert_weights_scale", 2.827_f32);
        keys.set("expert_weights_norm", true);
        keys.set("expert_gating_func", GATING_SIGMOID);
    }
}

fn yarn(keys: &mut Keys<'_>, architecture: Architecture) {
    keys.set("rope.scaling.type", "yarn");
    keys.set("rope.scaling.factor", YARN_FACTOR);
    keys.set("rope.scaling.original_context_length", YARN_ORIGINAL_CONTEXT);
    match architecture {
        Architecture::DeepSeek2 => {
            // The converter writes a tenth of `mscale_all_dim`, which is 1 for Kimi K2.
            keys.set("rope.scaling.yarn_log_multiplier", 0.1_f32);
            keys.set("rope.scaling.yarn_beta_fast", 1.0_f32);
            keys.set("rope.scaling.yarn_beta_slow", 1.0_f32);
        }
        _ => {
            keys.set("rope.scaling.yarn_beta_fast", 32.0_f32);
            keys.set("rope.scaling.yarn_beta_slow", 1.0_f32);
        }
    }
}

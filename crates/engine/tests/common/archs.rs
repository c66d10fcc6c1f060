//! Tiny models of any architecture: metadata that all of them understand, with what some need otherwise, and
//! the tensors that llama.cpp expects of a model with that metadata, filled with random weights.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use super::TinyModel;
use hypura_core::gguf::{GgmlType, HeaderBuilder, Metadata, Value, read_header};
use hypura_core::synth::{Quant, Shape, SynthOptions, SynthPlan};
use hypura_ggml::{ExpectedTensor, expected_tensors};
use std::fs;
use std::path::Path;

const VOCAB: u32 = 2048;
const EXPERTS: u32 = 8;

/// Dimensions of a tiny model.
struct Dims {
    layers: u32,
    embedding: u32,
    heads: u32,
    kv_heads: u32,
    ffn: u32,
}

/// Architectures with multi-head latent attention, of one geometry here.
const LATENT: &[&str] = &[
    "deepseek2",
    "deepseek32",
    "glm-dsa",
    "dots3note",
    "kimi-linear",
    "bailingmoe3",
    "kimi-k3",
    "glm5-next",
    "mistral4",
    "mistral-large4",
    "hy_v4",
];

/// Architectures whose second layer is recurrent, which its number of heads says.
const HYBRID: &[&str] = &[
    "jamba",
    "nemotron_h_moe",
    "granitehybrid",
    "lfm2moe",
    "kimi-linear",
    "bailingmoe3",
    "kimi-k3",
    "glm5-next",
];

/// Architectures that say of each layer whether its attention has a window.
const WINDOW_BY_LAYER: &[&str] = &[
    "beam",
    "cohere2moe",
    "dots3note",
    "flint",
    "granite_swa",
    "kolibri1",
    "maion-coder",
    "maple",
    "mimo2",
    "muse-spark",
    "step35",
];

impl Dims {
    fn of(arch: &str) -> Self {
        let usual = Self { layers: 2, embedding: 256, heads: 2, kv_heads: 2, ffn: 384 };
        match arch {
            "llama4" => Self { layers: 4, ..usual },
            "gemma4" => Self { layers: 5, embedding: 128, ffn: 192, ..usual },
            // Layers from the 20th on share their keys and values.
            "gemma3n" => Self { layers: 22, embedding: 64, heads: 1, kv_heads: 1, ffn: 96 },
            "deepseek4" => Self { layers: 4, embedding: 512, heads: 8, kv_heads: 1, ffn: 512 },
            "deepseek41" => Self { heads: 4, kv_heads: 1, ..usual },
            "step35" | "laguna" => Self { embedding: 160, ..usual },
            "afmoe" => Self { heads: 4, ..usual },
            "glm5-next" => Self { embedding: 128, heads: 8, kv_heads: 8, ffn: 192, ..usual },
            "nemotron_h_moe" => Self { layers: 3, ..usual },
            _ if LATENT.contains(&arch) => Self { embedding: 128, heads: 1, kv_heads: 1, ffn: 192, ..usual },
            _ => usual,
        }
    }

    fn head(&self) -> u32 {
        self.embedding / self.heads
    }

    fn each_layer(&self, value: impl Fn(u32) -> u32) -> Vec<u32> {
        (0..self.layers).map(value).collect()
    }
}

struct Keys<'a> {
    arch: &'a str,
    metadata: &'a mut Metadata,
}

impl Keys<'_> {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.insert(format!("{}.{key}", self.arch), value);
    }
}

/// Writes a tiny model with random weights.
pub fn tiny_of(arch: &str) -> TinyModel {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = HeaderBuilder::new();
    *builder.metadata_mut() = metadata(arch);
    let asked = folder.path().join("metadata.gguf");
    let mut header = Vec::new();
    builder.write_header(&mut header).unwrap();
    fs::write(&asked, header).unwrap();
    let tensors = expected_tensors(&asked).unwrap();
    let path = folder.path().join("tiny.gguf");
    write(&path, builder, &tensors);
    TinyModel { _folder: folder, path }
}

fn write(path: &Path, mut builder: HeaderBuilder, tensors: &[ExpectedTensor]) {
    for tensor in tensors {
        builder.tensor(&tensor.name, &tensor.shape, type_of(tensor));
    }
    let mut file = Vec::new();
    let layout = builder.write_header(&mut file).unwrap();
    for (index, tensor) in tensors.iter().enumerate() {
        let bytes = usize::try_from(layout.tensors[index].bytes).unwrap();
        file.extend(content(tensor, index as u64, bytes));
        file.resize(file.len() + usize::try_from(layout.padding_after(index)).unwrap(), 0);
    }
    fs::write(path, file).unwrap();
}

/// Matrices in 8 bits, as far as their rows are whole blocks; small things, and what is no weight of a
/// product, in floats.
fn type_of(tensor: &ExpectedTensor) -> GgmlType {
    let stays =
        ["conv", "ffn_gate_inp", "hc_", "ssm_a", "ape", "altup", "laurel", "time_mix", "norm", "tid2eid"];
    let blocks =
        tensor.shape.len() >= 2 && tensor.shape[0].is_multiple_of(32) && tensor.name.ends_with("weight");
    if blocks && !stays.iter().any(|name| tensor.name.contains(name)) {
        GgmlType::Q8_0
    } else {
        GgmlType::F32
    }
}

/// Random weights: norms around 1, decays of state spaces below 0, anything else around 0.
fn content(tensor: &ExpectedTensor, seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    if type_of(tensor) == GgmlType::Q8_0 {
        // 2⁻¹¹ as a half float; 127 of it are 0.06.
        let mut data = Vec::with_capacity(bytes);
        for at in 0..bytes {
            data.push(match at % 34 {
                0 => 0x00,
                1 => 0x10,
                _ => ((random() * 127.0) as i8).cast_unsigned(),
            });
        }
        return data;
    }
    let value = |random: f32| {
        if tensor.name.contains("norm") {
            1.0 + random * 0.2
        } else if tensor.name.contains("ssm_a") {
            -0.1 - random.abs()
        } else {
            random * 0.1
        }
    };
    (0..bytes / 4).flat_map(|_| value(random()).to_le_bytes()).collect()
}

/// The metadata of an architecture.
fn metadata(arch: &str) -> Metadata {
    let dims = Dims::of(arch);
    let mut metadata = tokenizer();
    metadata.insert("general.architecture", arch);
    let mut keys = Keys { arch, metadata: &mut metadata };
    basics(&mut keys, &dims);
    heads(&mut keys, &dims);
    attention(&mut keys, &dims);
    mixture(&mut keys, &dims);
    states(&mut keys, &dims);
    indexer(&mut keys, &dims);
    match arch {
        "gemma4" | "gemma3n" => embeddings_of_layers(&mut keys, &dims),
        "qwen4exp" | "glm5-next" => hyper_connections(&mut keys, &dims),
        "deepseek4" => deepseek4(&mut keys),
        "deepseek41" => deepseek41(&mut keys),
        "hy_v4" => hy_v4(&mut keys, &dims),
        _ => {}
    }
    metadata
}

/// Everything about tokens, from a model that `synth` makes.
fn tokenizer() -> Metadata {
    let plan = SynthPlan::new(&SynthOptions::new(Shape::TinyMixtral, Quant::Q8_0)).unwrap();
    let shard = &plan.shards()[0];
    let header = read_header(shard.header.as_slice(), shard.file_bytes).unwrap();
    let mut metadata = Metadata::new();
    for (key, value) in header.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        metadata.insert(key, value.clone());
    }
    metadata
}

fn basics(keys: &mut Keys<'_>, dims: &Dims) {
    keys.set("vocab_size", VOCAB);
    keys.set("context_length", 256_u32);
    keys.set("embedding_length", dims.embedding);
    keys.set("block_count", dims.layers);
    keys.set("leading_dense_block_count", 1_u32);
    match keys.arch {
        "nemotron_h_moe" => {
            keys.set("feed_forward_length", dims.each_layer(|layer| if layer <= 1 { 0 } else { dims.ffn }));
        }
        _ => keys.set("feed_forward_length", dims.ffn),
    }
    keys.set("use_parallel_residual", false);
    keys.set("logit_scale", 1.0_f32);
    keys.set("residual_scale", 1.0_f32);
    keys.set("full_attention_interval", 2_u32);
    keys.set("attn_res.block_size", 12_u32);
    keys.set("activation.situ_beta", 4.0_f32);
    keys.set("activation.situ_linear_beta", 25.0_f32);
}

fn heads(keys: &mut Keys<'_>, dims: &Dims) {
    if !HYBRID.contains(&keys.arch) {
        keys.set("attention.head_count", dims.heads);
        keys.set("attention.head_count_kv", dims.kv_heads);
        return;
    }
    let of = |heads: u32| dims.each_layer(|layer| if layer == 1 { 0 } else { heads });
    if keys.arch == "glm5-next" {
        keys.set("attention.head_count", dims.heads);
        keys.set("attention.head_count_kv", of(1));
    } else {
        keys.set("attention.head_count", of(dims.heads));
        keys.set("attention.head_count_kv", of(dims.heads));
    }
}

fn attention(keys: &mut Keys<'_>, dims: &Dims) {
    keys.set("attention.max_alibi_bias", 8.0_f32);
    keys.set("attention.clamp_kqv", 1.0_f32);
    keys.set("attention.layer_norm_epsilon", 1e-5_f32);
    keys.set("attention.layer_norm_rms_epsilon", 1e-5_f32);
    keys.set("post_norm_epsilon", 1e-5_f32);
    keys.set("final_logit_softcapping", 30.0_f32);
    keys.set("rope.freq_base_swa", 10_000.0_f32);
    keys.set("attention.q_lora_rank", if keys.arch == "deepseek4" { 64_u32 } else { 512 });
    keys.set("attention.kv_lora_rank", 512_u32);
    keys.set("attention.sliding_window", 32_u32);
    if WINDOW_BY_LAYER.contains(&keys.arch) {
        keys.set("attention.sliding_window_pattern", dims.each_layer(|layer| layer % 2));
    } else {
        keys.set("attention.sliding_window_pattern", 2_u32);
    }
    let quarter = dims.head() / 4;
    match keys.arch {
        "bailingmoe3" => keys.set("rope.dimension_sections", vec![8_u32, 12, 12, 0]),
        _ => keys.set("rope.dimension_sections", vec![quarter; 4]),
    }
    match keys.arch {
        "deepseek4" => {
            keys.set("attention.key_length", dims.head());
            keys.set("attention.value_length", dims.head());
            keys.set("rope.dimension_count", dims.head() / 2);
        }
        "minimax-m3" => keys.set("rope.dimension_count", 64_u32),
        arch if LATENT.contains(&arch) => {
            let no_positions = arch == "glm5-next";
            keys.set("attention.key_length", if no_positions { 512_u32 } else { 576 });
            keys.set("attention.value_length", 512_u32);
            keys.set("rope.dimension_count", if no_positions { 0_u32 } else { 64 });
            keys.set("attention.key_length_mla", 192_u32);
            keys.set("attention.value_length_mla", 128_u32);
        }
        _ => {}
    }
    if keys.arch == "flint" {
        keys.set("attention.rope_pattern", dims.each_layer(|_| 1));
    }
    if keys.arch == "dots3note" {
        keys.set("attention.kv_lora_rank_swa", 512_u32);
        keys.set("attention.key_length_swa", 576_u32);
        keys.set("attention.value_length_swa", 512_u32);
        keys.set("attention.key_length_mla_swa", 192_u32);
        keys.set("attention.value_length_mla_swa", 128_u32);
        keys.set("attention.indexer.types", dims.each_layer(|layer| u32::from(layer % 2 == 0)));
    }
}

fn mixture(keys: &mut Keys<'_>, dims: &Dims) {
    if keys.arch == "gemma3n" {
        return;
    }
    keys.set("expert_count", EXPERTS);
    keys.set("expert_used_count", 2_u32);
    keys.set("expert_feed_forward_length", dims.ffn);
    keys.set("expert_shared_feed_forward_length", dims.ffn / 2);
    keys.set("expert_chunk_feed_forward_length", dims.ffn);
    keys.set("expert_latent_length", dims.ffn);
    keys.set("expert_shared_count", 1_u32);
    keys.set("interleave_moe_layer_step", 2_u32);
    let root_of_softplus = matches!(keys.arch, "deepseek4" | "deepseek41");
    keys.set("expert_gating_func", if root_of_softplus { 4_u32 } else { 2 });
    keys.set("expert_group_scale", 1.0_f32);
    keys.set("experts_per_group", 1_u32);
    keys.set("expert_weights_scale", 1.0_f32);
    keys.set("expert_weights_norm", true);
    keys.set("moe_latent_size", dims.ffn);
    match keys.arch {
        "bailingmoe3" => {
            keys.set("swiglu_clamp_exp", vec![0.0_f32, 4.0]);
            keys.set("swiglu_clamp_shexp", vec![0.0_f32, 5.0]);
        }
        "deepseek4" | "deepseek41" | "hy_v4" | "maple" => keys.set("swiglu_clamp_exp", 7.0_f32),
        _ => {}
    }
}

fn states(keys: &mut Keys<'_>, dims: &Dims) {
    let delta_net = matches!(keys.arch, "qwen3next" | "qwen35moe" | "qwen4exp");
    keys.set("ssm.inner_size", if delta_net { 256 } else { 2 * dims.embedding });
    keys.set("ssm.conv_kernel", 4_u32);
    keys.set("ssm.state_size", 128_u32);
    keys.set("ssm.time_step_rank", dims.heads);
    keys.set("ssm.group_count", 2_u32);
    keys.set("kda.head_dim", 128_u32);
    keys.set("kda.safe_gate", true);
    keys.set("kda.gate_lower_bound", -5.0_f32);
    keys.set("shortconv.l_cache", 3_u32);
}

fn indexer(keys: &mut Keys<'_>, dims: &Dims) {
    let of_heads = matches!(keys.arch, "minimax-m3" | "deepseek4");
    keys.set("attention.indexer.head_count", if of_heads { dims.heads } else { 64 });
    keys.set("attention.indexer.key_length", if keys.arch == "qwen4exp" { dims.head() } else { 128 });
    keys.set("attention.indexer.top_k", 8_u32);
    keys.set("attention.indexer.block_size", 4_u32);
    keys.set("attention.indexer.kpool", 4_u32);
    keys.set("attention.indexer.kpool_select_tail", true);
    keys.set("attention.indexer.local_blocks", 1_u32);
}

fn embeddings_of_layers(keys: &mut Keys<'_>, dims: &Dims) {
    keys.set("embedding_length_per_layer_input", dims.embedding / 2);
    keys.set("attention.shared_kv_layers", 0_u32);
    keys.set("attention.key_length_swa", dims.head());
    keys.set("attention.value_length_swa", dims.head());
    keys.set("rope.dimension_count_swa", dims.head());
    if keys.arch == "gemma4" {
        keys.set("attention.sliding_window_pattern", dims.each_layer(|layer| u32::from(layer % 5 != 4)));
    }
}

/// Four residual streams; in `qwen4exp` a table of n-grams too.
fn hyper_connections(keys: &mut Keys<'_>, dims: &Dims) {
    keys.set("hyper_connection.count", 4_u32);
    keys.set("hyper_connection.sinkhorn_iterations", 2_u32);
    keys.set("hyper_connection.epsilon", 1e-6_f32);
    keys.set("hyper_connection.low_rank", 32_u32);
    keys.set("attention.compress_ratios", vec![4_u32; dims.layers as usize]);
    if keys.arch != "qwen4exp" {
        return;
    }
    // Two heads for pairs and two for triples of tokens, with thousands of rows each.
    keys.set("ple.layers", vec![0_u32]);
    keys.set("ple.ngram_size", 3_u32);
    keys.set("ple.heads_per_ngram", 2_u32);
    keys.set("ple.conv_kernel", 4_u32);
    keys.set("ple.eos_token_id", 0_u32);
    keys.set("embedding_length_per_layer_input", dims.embedding / 4);
    keys.set("ple.layer_multipliers", vec![7_919_u64, 104_729, 1_299_709]);
    keys.set("ple.head_offsets", vec![0_u64, 5_000, 10_000, 15_000]);
    keys.set("ple.head_vocab_sizes", vec![4_999_u64, 4_993, 4_987, 4_973]);
}

fn deepseek4(keys: &mut Keys<'_>) {
    keys.set("attention.output_group_count", 8_u32);
    keys.set("attention.output_lora_rank", 32_u32);
    keys.set("attention.compress_ratios", vec![0_u32, 0, 4, 128]);
    keys.set("attention.compress_rope_freq_base", 160_000.0_f32);
    keys.set("hyper_connection.count", 4_u32);
    keys.set("hyper_connection.sinkhorn_iterations", 2_u32);
    keys.set("hyper_connection.epsilon", 1e-6_f32);
    keys.set("hash_layer_count", 0_u32);
}

/// A table that two layers hash n-grams into.
fn deepseek41(keys: &mut Keys<'_>) {
    deepseek4(keys);
    keys.set("attention.key_length", 64_u32);
    keys.set("attention.value_length", 64_u32);
    keys.set("rope.dimension_count", 32_u32);
    keys.set("attention.q_lora_rank", 64_u32);
    keys.set("attention.output_group_count", 2_u32);
    keys.set("attention.compress_ratios", vec![1_u32, 1]);
    keys.set("attention.kv_source_layers", vec![0_u32]);
    keys.set("attention.indexer.source_layers", vec![0_u32]);
    keys.set("attention.indexer.head_count", 2_u32);
    keys.set("attention.indexer.key_length", 64_u32);
    keys.set("ple.layers", vec![0_u32, 1]);
    keys.set("ple.ngram_size", 3_u32);
    keys.set("ple.heads_per_ngram", 2_u32);
    keys.set("embedding_length_per_layer_input", 64_u32);
    keys.set("ple.layer_multipliers", vec![3_u64, 5, 7, 11, 13, 17]);
    keys.set("ple.head_offsets", (0..8_u64).map(|head| head * 2_500).collect::<Vec<_>>());
    keys.set("ple.head_vocab_sizes", vec![2_477_u64, 2_473, 2_467, 2_459, 2_447, 2_441, 2_437, 2_423]);
    keys.set("engram.pad_token_id", 2_u32);
    keys.set("engram.token_map", (0..VOCAB.cast_signed()).collect::<Vec<i32>>());
}

fn hy_v4(keys: &mut Keys<'_>, dims: &Dims) {
    keys.set("hyper_connection.count", 4_u32);
    keys.set("hyper_connection.epsilon", 1e-6_f32);
    keys.set("hyper_connection.magnitude", 2.0_f32);
    keys.set("attention.indexer.types", dims.each_layer(|layer| u32::from(layer % 2 == 0)));
}

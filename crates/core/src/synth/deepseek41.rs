//! The tensors of DeepSeek-V4.1-Flash (`src/models/deepseek41.cpp`): a mixture of experts with several
//! residual streams, layers that attend to what a few of them compress, and a table of n-grams (Engram) that
//! two layers read.
//!
//! Which layers compress and index follows the published lists; their ratios are chosen.

use super::dims::{Dims, Engram};
use super::keys::Keys;
use super::list::List;
use super::ngrams;
use super::quant::TensorClass;

/// Layers whose keys and values others use, and layers that choose cells for others.
const KV_SOURCES: [u32; 4] = [2, 8, 14, 20];
const INDEX_SOURCES: [u32; 8] = [2, 5, 8, 11, 14, 17, 20, 30];
/// Tokens that are compressed into one.
const COMPRESS_RATIO: u32 = 2;
/// The layers that read the table, as far as the model has them.
const NGRAM_LAYERS: [u32; 2] = [1, 14];
/// `LLAMA_EXPERT_GATING_FUNC_TYPE_SQRT_SOFTPLUS` of `llama-hparams.h`.
const GATING_SQRT_SOFTPLUS: u32 = 4;

/// Layers of a model; the second that reads the table is the last one where there are too few.
fn ngram_layers(layers: u32) -> [u32; 2] {
    NGRAM_LAYERS.map(|layer| layer.min(layers.saturating_sub(1)))
}

fn ratio(layer: u32) -> u32 {
    if layer < KV_SOURCES[0] { 0 } else { COMPRESS_RATIO }
}

/// All tensors of a model of `layers` layers.
pub(super) fn list(list: &mut List<'_>, engram: Engram, layers: u32) {
    Tensors { list, engram }.all(layers);
}

struct Tensors<'a, 'b> {
    list: &'a mut List<'b>,
    engram: Engram,
}

impl Tensors<'_, '_> {
    fn all(&mut self, layers: u32) {
        let Dims { embedding, vocab, .. } = *self.list.dims;
        self.list.embeddings();
        ngrams::list(self.list, self.engram.ngrams, layers);
        for layer in 0..layers {
            self.list.layer = layer;
            self.streams("attn");
            self.attention();
            if ngram_layers(layers).contains(&layer) {
                self.engram();
            }
            self.streams("ffn");
            self.list.norm("ffn_norm", embedding);
            if let Some(experts) = self.list.dims.experts {
                self.list.experts(experts);
            }
        }
        self.list.layer = 0;
        self.list.norm_named("output_norm.weight", embedding);
        self.list.projection(embedding, vocab);
    }

    /// What makes one input of several streams and gives them the output.
    fn streams(&mut self, of: &str) {
        let wide = self.engram.streams * self.list.dims.embedding;
        let mixes = (2 + self.engram.streams) * self.engram.streams;
        let spread = (3.0 / wide as f32).sqrt();
        self.list.around(&format!("hc_{of}_fn.weight"), &[wide, mixes], 0.0, spread);
        self.list.around(&format!("hc_{of}_base.weight"), &[mixes], 0.0, 0.5);
        self.list.around(&format!("hc_{of}_scale.weight"), &[3], 0.5, 0.1);
    }

    fn attention(&mut self) {
        let Dims { embedding, heads, head_len, .. } = *self.list.dims;
        let Engram { query_rank, output_groups, output_rank, indexer_heads, indexer_len, .. } = self.engram;
        let class = TensorClass::Attention;
        self.list.norm("attn_norm", embedding);
        self.list.around("attn_sinks.weight", &[heads], 0.0, 1.0);
        self.list.matrix("attn_q_a", &[embedding, query_rank], class);
        self.list.norm("attn_q_a_norm", query_rank);
        self.list.matrix("attn_q_b", &[query_rank, heads * head_len], class);
        self.list.matrix("attn_kv", &[embedding, head_len], class);
        self.list.norm("attn_kv_a_norm", head_len);
        self.list.matrix(
            "attn_output_a",
            &[heads * head_len / output_groups, output_rank * output_groups],
            class,
        );
        self.list.residual("attn_output_b", &[output_groups * output_rank, embedding], class);
        if KV_SOURCES.contains(&self.list.layer) {
            self.list.matrix("attn_compressor_kv", &[embedding, head_len], class);
            self.list.matrix("attn_compressor_gate", &[embedding, head_len], class);
            self.list.norm("attn_compressor_norm", head_len);
            self.list.matrix("indexer.attn_k", &[head_len, indexer_len], class);
            self.list.norm("indexer.k_norm", indexer_len);
        }
        if INDEX_SOURCES.contains(&self.list.layer) {
            self.list.matrix("indexer.attn_q_b", &[query_rank, indexer_heads * indexer_len], class);
            self.list.matrix("indexer.proj", &[embedding, indexer_heads], class);
        }
    }

    fn engram(&mut self) {
        let embedding = self.list.dims.embedding;
        let read = self.engram.ngrams.heads() * self.engram.ngrams.head_len;
        self.list.matrix("engram_kv", &[read, embedding * (self.engram.streams + 1)], TensorClass::Ffn);
        self.list.around("engram_gate.weight", &[embedding, self.engram.streams], 1.0, 0.2);
    }
}

/// What llama.cpp needs beside the keys that all models have.
pub(super) fn describe(keys: &mut Keys<'_>, dims: &Dims, engram: Engram, layers: u32) {
    let sources = |all: &[u32]| all.iter().copied().filter(|layer| *layer < layers).collect::<Vec<u32>>();
    keys.set("rope.dimension_count", engram.rope_len as u32);
    keys.set("attention.q_lora_rank", engram.query_rank as u32);
    keys.set("attention.output_group_count", engram.output_groups as u32);
    keys.set("attention.output_lora_rank", engram.output_rank as u32);
    keys.set("attention.compress_ratios", (0..layers).map(ratio).collect::<Vec<u32>>());
    keys.set("attention.compress_rope_freq_base", 160_000.0_f32);
    keys.set("attention.kv_source_layers", sources(&KV_SOURCES));
    keys.set("attention.indexer.source_layers", sources(&INDEX_SOURCES));
    keys.set("attention.indexer.head_count", engram.indexer_heads as u32);
    keys.set("attention.indexer.key_length", engram.indexer_len as u32);
    keys.set("attention.indexer.top_k", engram.indexer_top_k);
    keys.set("hyper_connection.count", engram.streams as u32);
    keys.set("hyper_connection.sinkhorn_iterations", 20_u32);
    keys.set("hyper_connection.epsilon", 1e-6_f32);
    keys.set("hash_layer_count", 0_u32);
    keys.set("swiglu_clamp_exp", 10.0_f32);
    keys.set("expert_gating_func", GATING_SQRT_SOFTPLUS);
    keys.set("expert_shared_count", dims.experts.map_or(0, |experts| experts.shared) as u32);
    keys.set("expert_weights_scale", 1.5_f32);
    keys.set("expert_weights_norm", true);
    ngrams::describe(keys, engram.ngrams.cut(layers, dims.layers), &ngram_layers(layers));
    keys.set("engram.pad_token_id", 2_u32);
    keys.set("engram.token_map", (0..dims.vocab as i32).collect::<Vec<i32>>());
}

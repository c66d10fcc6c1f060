//! The tensors of Qwen3.8-Flash-Next (`src/models/qwen4exp.cpp`): a mixture of experts with several residual
//! streams, whose layers are recurrent but for every fourth, and a table of n-grams that one layer reads.
//!
//! Hidden size, heads, experts and the table are those of the model's card; what the card leaves open (rank
//! of the hyper-connections, heads of the indexer) is chosen so that the number of active weights agrees.

use super::dims::{Dims, Experts, Hybrid};
use super::keys::Keys;
use super::list::{Init, List};
use super::ngrams;
use super::quant::TensorClass;

/// Taps of convolutions over time.
const CONV_KERNEL: u64 = 4;
/// The layer that reads the table: a recurrent one.
const NGRAM_LAYER: u32 = 2;

impl Hybrid {
    fn has_attention(&self, layer: u32) -> bool {
        (layer + 1).is_multiple_of(self.period)
    }
}

/// All tensors of a model of `layers` layers.
pub(super) fn list(list: &mut List<'_>, hybrid: Hybrid, layers: u32) {
    Tensors { list, hybrid }.all(layers);
}

struct Tensors<'a, 'b> {
    list: &'a mut List<'b>,
    hybrid: Hybrid,
}

impl Tensors<'_, '_> {
    fn all(&mut self, layers: u32) {
        let Dims { embedding, vocab, .. } = *self.list.dims;
        self.list.embeddings();
        ngrams::list(self.list, self.hybrid.ngrams, layers);
        for layer in 0..layers {
            self.list.layer = layer;
            self.layer();
        }
        self.list.layer = 0;
        let wide = self.hybrid.streams * embedding;
        self.norm_of_streams("output_hc_norm.weight", self.hybrid.streams);
        let std = |fan_in: u64| Init::Weight { std: 1.0 / (fan_in as f32).sqrt() };
        self.list.push("output_hc_down.weight", &[wide, self.hybrid.rank], TensorClass::Attention, std(wide));
        self.list.push(
            "output_hc_up.weight",
            &[self.hybrid.rank, wide],
            TensorClass::Attention,
            std(self.hybrid.rank),
        );
        self.list.projection(embedding, vocab);
    }

    fn layer(&mut self) {
        self.mixer("attn");
        if self.hybrid.has_attention(self.list.layer) {
            self.attention();
        } else {
            self.recurrent();
        }
        if self.list.layer == NGRAM_LAYER {
            self.ngram_module();
        }
        self.mixer("ffn");
        if let Some(experts) = self.list.dims.experts {
            self.experts(experts);
        }
    }

    fn norm_of_streams(&mut self, name: impl Into<String>, streams: u64) {
        self.list.around_named(name, &[self.list.dims.embedding, streams], 1.0, 0.2);
    }

    /// What makes one input of several streams, and says how much of the output each gets.
    fn mixer(&mut self, of: &str) {
        let Hybrid { streams, rank, .. } = self.hybrid;
        let wide = streams * self.list.dims.embedding;
        let norm = self.list.name(&format!("hc_{of}_norm.weight"));
        self.norm_of_streams(norm, streams);
        self.list.matrix(&format!("hc_{of}_down"), &[wide, rank], TensorClass::Attention);
        self.list.matrix(&format!("hc_{of}_up"), &[rank, wide], TensorClass::Attention);
        self.list.matrix(&format!("hc_{of}_inject"), &[wide, streams], TensorClass::Attention);
    }

    fn attention(&mut self) {
        let Dims { embedding, heads, kv_heads, head_len, .. } = *self.list.dims;
        let class = TensorClass::Attention;
        // A query and a gate for each head.
        self.list.matrix("attn_q", &[embedding, 2 * heads * head_len], class);
        self.list.matrix("attn_k", &[embedding, kv_heads * head_len], class);
        self.list.matrix("attn_v", &[embedding, kv_heads * head_len], TensorClass::AttentionValue);
        self.list.residual("attn_output", &[heads * head_len, embedding], class);
        self.list.norm("attn_q_norm", head_len);
        self.list.norm("attn_k_norm", head_len);
        self.list.matrix(
            "indexer.q_proj",
            &[embedding, self.hybrid.indexer_heads * self.hybrid.indexer_len],
            class,
        );
        self.list.matrix("indexer.k_proj", &[embedding, self.hybrid.indexer_len], class);
        self.list.norm("indexer.q_norm", self.hybrid.indexer_len);
        self.list.norm("indexer.k_norm", self.hybrid.indexer_len);
    }

    /// A gated delta net.
    fn recurrent(&mut self) {
        let embedding = self.list.dims.embedding;
        let (keys, values) =
            (self.hybrid.key_heads * self.hybrid.state_len, self.hybrid.value_heads * self.hybrid.state_len);
        let class = TensorClass::Attention;
        self.list.matrix("attn_qkv", &[embedding, 2 * keys + values], class);
        self.list.matrix("attn_gate", &[embedding, values], class);
        self.list.around("ssm_conv1d.weight", &[CONV_KERNEL, 2 * keys + values], 0.0, 0.5);
        self.list.around("ssm_dt.bias", &[self.hybrid.value_heads], 0.0, 0.5);
        self.list.around("ssm_a", &[self.hybrid.value_heads], -0.5, 0.4);
        self.list.matrix("ssm_beta", &[embedding, self.hybrid.value_heads], class);
        self.list.matrix("ssm_alpha", &[embedding, self.hybrid.value_heads], class);
        self.list.norm("ssm_norm", self.hybrid.state_len);
        self.list.residual("ssm_out", &[values, embedding], class);
    }

    fn ngram_module(&mut self) {
        let embedding = self.list.dims.embedding;
        let wide = self.hybrid.streams * embedding;
        self.list.matrix("ple_key", &[embedding, wide], TensorClass::Ffn);
        self.list.residual("ple_value", &[embedding, embedding], TensorClass::Ffn);
        for norm in ["ple_norm_key", "ple_norm_query", "ple_norm_conv"] {
            let name = self.list.name(&format!("{norm}.weight"));
            self.norm_of_streams(name, self.hybrid.streams);
        }
        self.list.around("ple_conv1d.weight", &[CONV_KERNEL, wide], 0.0, 0.5);
    }

    fn experts(&mut self, experts: Experts) {
        self.list.experts(experts);
        let embedding = self.list.dims.embedding;
        self.list.around("ffn_gate_inp_shexp.weight", &[embedding], 0.0, 1.0 / (embedding as f32).sqrt());
    }
}

/// What llama.cpp needs beside the keys that all models have.
pub(super) fn describe(keys: &mut Keys<'_>, dims: &Dims, hybrid: Hybrid, layers: u32) {
    let values = hybrid.value_heads * hybrid.state_len;
    let pool = |layer| if hybrid.has_attention(layer) { hybrid.indexer_block } else { 0 };
    // Pairs of a quarter of each head turn, for time, height and width.
    let turned = dims.head_len / 4;
    let (third, pairs) = (turned / 2 / 3, turned / 2);
    let sections = [third + u64::from(pairs % 3 > 0), third + u64::from(pairs % 3 > 1), third, 0];
    keys.set("rope.dimension_count", turned as u32);
    keys.set("rope.dimension_sections", sections.map(|pairs| pairs as u32).to_vec());
    keys.set("full_attention_interval", hybrid.period);
    keys.set("ssm.conv_kernel", CONV_KERNEL as u32);
    keys.set("ssm.inner_size", values as u32);
    keys.set("ssm.state_size", hybrid.state_len as u32);
    keys.set("ssm.time_step_rank", hybrid.value_heads as u32);
    keys.set("ssm.group_count", hybrid.key_heads as u32);
    keys.set("hyper_connection.count", hybrid.streams as u32);
    keys.set("hyper_connection.low_rank", hybrid.rank as u32);
    keys.set("attention.indexer.head_count", hybrid.indexer_heads as u32);
    keys.set("attention.indexer.key_length", hybrid.indexer_len as u32);
    keys.set("attention.indexer.top_k", hybrid.indexer_top_k);
    keys.set("attention.compress_ratios", (0..layers).map(pool).collect::<Vec<u32>>());
    if let Some(experts) = dims.experts {
        keys.set("expert_shared_feed_forward_length", (experts.shared * experts.ffn) as u32);
    }
    ngrams::describe(keys, hybrid.ngrams.cut(layers, dims.layers), &[NGRAM_LAYER]);
    keys.set("ple.conv_kernel", CONV_KERNEL as u32);
    keys.set("ple.eos_token_id", (dims.vocab - 1) as u32);
}

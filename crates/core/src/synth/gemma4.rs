//! The tensors of Gemma 4's small models (`src/models/gemma4.cpp`), whose largest is a table: an embedding of
//! each token for each layer. The projection to the vocabulary is the embedding of tokens.

use super::dims::{Dims, PerLayer};
use super::keys::Keys;
use super::list::{Init, LOGIT_STD, List};
use super::quant::TensorClass;

impl PerLayer {
    /// Whether a layer sees a window only.
    fn is_windowed(&self, layer: u32) -> bool {
        !(layer + 1).is_multiple_of(self.period)
    }

    /// How many of `layers` layers have keys and values of their own: the last of them sees the whole context
    /// and the one before it a window, or else all have some.
    fn own_kv_layers(&self, layers: u32) -> u32 {
        let own = layers.saturating_sub(self.shared_kv_layers);
        if own > 0 && own.is_multiple_of(self.period) { own } else { layers }
    }

    /// Whether a layer has keys and values of its own.
    fn has_kv(&self, layer: u32, layers: u32) -> bool {
        layer < self.own_kv_layers(layers)
    }

    fn ffn(&self, dims: &Dims, layer: u32, layers: u32) -> u64 {
        if self.wide_ffn && !self.has_kv(layer, layers) { 2 * dims.ffn } else { dims.ffn }
    }
}

/// All tensors of a model of `layers` layers.
pub(super) fn list(list: &mut List<'_>, per_layer: PerLayer, layers: u32) {
    Tensors { list, per_layer }.all(layers);
}

struct Tensors<'a, 'b> {
    list: &'a mut List<'b>,
    per_layer: PerLayer,
}

impl Tensors<'_, '_> {
    fn all(&mut self, layers: u32) {
        let Dims { embedding, vocab, .. } = *self.list.dims;
        let of_layers = self.per_layer.embedding * u64::from(layers);
        // llama.cpp multiplies what it reads of both tables by the root of their width.
        let std = LOGIT_STD / (embedding as f32).sqrt();
        self.list.push(
            "token_embd.weight",
            &[embedding, vocab],
            TensorClass::Embedding,
            Init::Weight { std },
        );
        let std = 1.0 / (self.per_layer.embedding as f32).sqrt();
        let table = &[of_layers, vocab];
        self.list.push("per_layer_token_embd.weight", table, TensorClass::Embedding, Init::Weight { std });
        let std = 1.0 / (embedding as f32).sqrt();
        let projection = &[embedding, of_layers];
        self.list.push(
            "per_layer_model_proj.weight",
            projection,
            TensorClass::Attention,
            Init::Weight { std },
        );
        self.list.norm_named("per_layer_proj_norm.weight", self.per_layer.embedding);
        self.list.norm_named("output_norm.weight", embedding);
        let factors = vec![1.0; self.per_layer.global_head_len as usize / 2];
        let count = factors.len() as u64;
        self.list.push("rope_freqs.weight", &[count], TensorClass::Plain, Init::Fixed(factors));
        for layer in 0..layers {
            self.list.layer = layer;
            self.layer(layers);
        }
    }

    fn layer(&mut self, layers: u32) {
        let Dims { embedding, heads, kv_heads, head_len, .. } = *self.list.dims;
        let class = TensorClass::Attention;
        let windowed = self.per_layer.is_windowed(self.list.layer);
        let head_len = if windowed { head_len } else { self.per_layer.global_head_len };
        self.list.norm("attn_norm", embedding);
        self.list.matrix("attn_q", &[embedding, heads * head_len], class);
        self.list.norm("attn_q_norm", head_len);
        if self.per_layer.has_kv(self.list.layer, layers) {
            self.list.matrix("attn_k", &[embedding, kv_heads * head_len], class);
            self.list.matrix("attn_v", &[embedding, kv_heads * head_len], TensorClass::AttentionValue);
            self.list.norm("attn_k_norm", head_len);
        }
        self.list.residual("attn_output", &[heads * head_len, embedding], class);
        let ffn = self.per_layer.ffn(self.list.dims, self.list.layer, layers);
        self.list.matrix("ffn_gate", &[embedding, ffn], TensorClass::Ffn);
        self.list.matrix("ffn_up", &[embedding, ffn], TensorClass::Ffn);
        self.list.residual("ffn_down", &[ffn, embedding], TensorClass::FfnDown);
        self.list.matrix("inp_gate", &[embedding, self.per_layer.embedding], TensorClass::Ffn);
        self.list.residual("proj", &[self.per_layer.embedding, embedding], TensorClass::Ffn);
        for norm in ["post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm"] {
            self.list.norm(norm, embedding);
        }
        let scale = self.list.name("layer_output_scale.weight");
        self.list.push(scale, &[1], TensorClass::Plain, Init::Fixed(vec![1.0]));
    }
}

/// What llama.cpp needs beside the keys that all models have.
pub(super) fn describe(keys: &mut Keys<'_>, dims: &Dims, per_layer: PerLayer, layers: u32) {
    let windowed: Vec<bool> = (0..layers).map(|layer| per_layer.is_windowed(layer)).collect();
    let ffn: Vec<u32> = (0..layers).map(|layer| per_layer.ffn(dims, layer, layers) as u32).collect();
    keys.set("feed_forward_length", ffn);
    keys.set("attention.sliding_window_pattern", windowed);
    keys.set("attention.shared_kv_layers", layers - per_layer.own_kv_layers(layers));
    keys.set("attention.key_length", per_layer.global_head_len as u32);
    keys.set("attention.value_length", per_layer.global_head_len as u32);
    keys.set("rope.dimension_count", per_layer.global_head_len as u32);
    keys.set("attention.key_length_swa", dims.head_len as u32);
    keys.set("attention.value_length_swa", dims.head_len as u32);
    keys.set("rope.dimension_count_swa", dims.head_len as u32);
    keys.set("rope.freq_base_swa", 10_000.0_f32);
    keys.set("embedding_length_per_layer_input", per_layer.embedding as u32);
    keys.set("final_logit_softcapping", 30.0_f32);
}

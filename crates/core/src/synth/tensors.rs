//! The tensors of each architecture: llama.cpp's names and shapes, and how their values are drawn.
//!
//! Names and shapes are those that
//! `src/models/{llama,qwen2,qwen2vl,gemma3,qwen3moe,openai-moe,deepseek2}.cpp` create; models with large
//! tables have files of their own. Weights have a standard deviation of 1/√fan-in, so that every matrix keeps
//! the scale of a normalised input and the residual stream grows only as the square root of the number of
//! layers.

use super::dims::{Architecture, Dims, Experts, Form, Latent};
use super::list::{Init, List, TensorSpec};
use super::quant::TensorClass;
use super::{deepseek41, gemma4, qwen4exp};

/// The tensors of a model of `layers` layers, in the order in which llama.cpp's converter writes them.
pub(super) fn list(dims: &Dims, layers: u32) -> Vec<TensorSpec> {
    let mut list = List { dims, layer: 0, tensors: Vec::new() };
    match dims.form {
        Form::Usual => list.usual(layers),
        Form::PerLayer(per_layer) => gemma4::list(&mut list, per_layer, layers),
        Form::Hybrid(hybrid) => qwen4exp::list(&mut list, hybrid, layers),
        Form::Engram(engram) => deepseek41::list(&mut list, engram, layers),
    }
    list.tensors
}

impl List<'_> {
    fn usual(&mut self, layers: u32) {
        let dims = self.dims;
        self.embeddings();
        if dims.llama3_rope {
            let factors = llama3_rope_factors(dims);
            let count = factors.len() as u64;
            self.push("rope_freqs.weight", &[count], TensorClass::Plain, Init::Fixed(factors));
        }
        for layer in 0..layers {
            self.layer = layer;
            self.attention();
            self.feed_forward();
        }
        self.layer = 0;
        self.norm_named("output_norm.weight", dims.embedding);
        self.projection(dims.embedding, dims.vocab);
    }

    fn attention(&mut self) {
        self.norm("attn_norm", self.dims.embedding);
        match self.dims.latent {
            Some(latent) => self.latent_attention(latent),
            None => self.grouped_attention(),
        }
        let norms: &[&str] = match self.dims.architecture {
            Architecture::GptOss => &["post_attention_norm"],
            Architecture::Gemma3 => &["post_attention_norm", "ffn_norm", "post_ffw_norm"],
            _ => &["ffn_norm"],
        };
        for norm in norms {
            self.norm(norm, self.dims.embedding);
        }
    }

    fn grouped_attention(&mut self) {
        let dims = self.dims;
        let (queries, keys) = (dims.heads * dims.head_len, dims.kv_heads * dims.head_len);
        self.matrix("attn_q", &[dims.embedding, queries], TensorClass::Attention);
        self.matrix("attn_k", &[dims.embedding, keys], TensorClass::Attention);
        self.matrix("attn_v", &[dims.embedding, keys], TensorClass::AttentionValue);
        self.residual("attn_output", &[queries, dims.embedding], TensorClass::Attention);
        match dims.architecture {
            Architecture::Qwen3Moe | Architecture::Gemma3 => {
                self.norm("attn_q_norm", dims.head_len);
                self.norm("attn_k_norm", dims.head_len);
            }
            Architecture::Qwen2 | Architecture::Qwen2Vl | Architecture::GptOss => {
                self.bias("attn_q", &[queries], 0.2);
                self.bias("attn_k", &[keys], 0.2);
                self.bias("attn_v", &[keys], 0.2);
            }
            // The last three list their attention themselves.
            Architecture::Llama
            | Architecture::DeepSeek2
            | Architecture::Gemma4
            | Architecture::Qwen4Exp
            | Architecture::DeepSeek41 => {}
        }
        if dims.architecture == Architecture::GptOss {
            self.bias("attn_output", &[dims.embedding], 0.1);
            let (name, init) = (self.name("attn_sinks.weight"), Init::Around { mean: 0.0, spread: 1.0 });
            self.push(name, &[dims.heads], TensorClass::Plain, init);
        }
    }

    fn latent_attention(&mut self, latent: Latent) {
        let Latent { query_rank, kv_rank, nope_len, rope_len, value_len } = latent;
        let Dims { embedding, heads, .. } = *self.dims;
        let class = TensorClass::Attention;
        self.norm("attn_q_a_norm", query_rank);
        self.norm("attn_kv_a_norm", kv_rank);
        self.matrix("attn_q_a", &[embedding, query_rank], class);
        self.matrix("attn_q_b", &[query_rank, heads * (nope_len + rope_len)], class);
        self.matrix("attn_kv_a_mqa", &[embedding, kv_rank + rope_len], class);
        // Stored transposed: as a map from the latent vector to a key head its fan-in is the latent rank.
        self.matrix_of_fan_in("attn_k_b", &[nope_len, kv_rank, heads], class, kv_rank);
        self.matrix("attn_v_b", &[kv_rank, value_len, heads], class);
        self.residual("attn_output", &[heads * value_len, embedding], class);
    }

    fn feed_forward(&mut self) {
        match self.dims.experts {
            Some(experts) if self.layer >= experts.leading_dense => self.experts(experts),
            _ => self.dense("", self.dims.ffn),
        }
    }

    /// A dense FFN, or the shared expert (`suffix` `_shexp`).
    fn dense(&mut self, suffix: &str, ffn: u64) {
        let embedding = self.dims.embedding;
        self.matrix(&format!("ffn_gate{suffix}"), &[embedding, ffn], TensorClass::Ffn);
        self.matrix(&format!("ffn_up{suffix}"), &[embedding, ffn], TensorClass::Ffn);
        self.residual(&format!("ffn_down{suffix}"), &[ffn, embedding], TensorClass::FfnDown);
    }

    pub fn experts(&mut self, experts: Experts) {
        let embedding = self.dims.embedding;
        let Experts { count, ffn, shared, .. } = experts;
        let router = self.name("ffn_gate_inp.weight");
        self.push(router, &[embedding, count], TensorClass::Plain, Init::Router { row: embedding });
        match self.dims.architecture {
            Architecture::DeepSeek2 | Architecture::DeepSeek41 => self.bias("exp_probs_b", &[count], 0.1),
            Architecture::GptOss => self.bias("ffn_gate_inp", &[count], 0.5),
            _ => {}
        }
        self.matrix("ffn_gate_exps", &[embedding, ffn, count], TensorClass::Experts);
        self.matrix("ffn_up_exps", &[embedding, ffn, count], TensorClass::Experts);
        self.residual("ffn_down_exps", &[ffn, embedding, count], TensorClass::ExpertsDown);
        if self.dims.architecture == Architecture::GptOss {
            self.bias("ffn_gate_exps", &[ffn, count], 0.1);
            self.bias("ffn_up_exps", &[ffn, count], 0.1);
            self.bias("ffn_down_exps", &[embedding, count], 0.1);
        }
        if shared > 0 {
            self.dense("_shexp", ffn * shared);
        }
    }
}

/// The divisors of RoPE frequencies of Llama 3.1: 1 for short wavelengths, 8 for long ones, smooth between
/// (`rope_scaling` of its `config.json`: factor 8, low 1, high 4, original context 8192).
fn llama3_rope_factors(dims: &Dims) -> Vec<f32> {
    const FACTOR: f64 = 8.0;
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const ORIGINAL_CONTEXT: f64 = 8192.0;
    let pairs = dims.head_len / 2;
    (0..pairs)
        .map(|pair| {
            let exponent = pair as f64 / pairs as f64;
            let wavelength = std::f64::consts::TAU * f64::from(dims.rope_base).powf(exponent);
            let turns = ORIGINAL_CONTEXT / wavelength;
            let smooth = ((turns - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
            (1.0 / ((1.0 - smooth) / FACTOR + smooth)) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::Shape;

    #[test]
    fn long_waves_are_stretched_eightfold() {
        let factors = llama3_rope_factors(Shape::Llama70b.dims());
        assert_eq!(factors.len(), 64);
        assert_eq!((factors[0], factors[63]), (1.0, 8.0));
        assert!(factors.is_sorted());
        // Pair 30 has wavelength 2π·500000^(30/64) = 2948.3, 2.7785 turns: 1/((1−0.59285)/8 + 0.59285).
        assert!((factors[30] - 1.5534).abs() < 1e-3, "{}", factors[30]);
    }

    #[test]
    fn leading_layers_of_kimi_are_dense_and_the_rest_have_a_shared_expert() {
        let tensors = list(Shape::TinyKimiK2.dims(), 3);
        let has = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
        assert!(has("blk.0.ffn_gate.weight") && !has("blk.0.ffn_gate_exps.weight"));
        assert!(has("blk.1.ffn_gate_exps.weight") && has("blk.1.ffn_down_shexp.weight"));
        assert!(
            has("blk.2.exp_probs_b.bias") && !has("blk.2.ffn_gate.weight") && !has("blk.3.attn_norm.weight")
        );
    }
}

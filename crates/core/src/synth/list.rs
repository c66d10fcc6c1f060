//! What lists of tensors are made with: names, shapes, and how values are drawn.

use super::dims::Dims;
use super::quant::TensorClass;

/// How the values of a tensor are drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Init {
    /// Zero mean, this standard deviation.
    Weight { std: f32 },
    /// Uniform within `spread` of `mean` (F32 only).
    Around { mean: f32, spread: f32 },
    /// Router rows of `row` elements, some longer than others so that some experts are hotter (F32 only).
    Router { row: u64 },
    /// These very numbers (F32 only).
    Fixed(Vec<f32>),
}

/// One tensor before it has a type and a place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorSpec {
    pub name: String,
    /// Innermost dimension first.
    pub shape: Vec<u64>,
    pub class: TensorClass,
    pub layer: u32,
    pub init: Init,
}

/// Standard deviation of logits: enough that a sample is decided by few tokens, as in trained models.
pub(super) const LOGIT_STD: f32 = 2.5;

/// What attention and feed-forward networks add to the residual stream, relative to what they would with
/// 1/√fan-in. Without it the part that all tokens of a context share (attention averages, and each layer
/// amplifies the average) drowns the tokens themselves after some tens of layers, and routers send nearly
/// every token to the same experts. GPT-2 scales the same matrices down, by 1/√(2 · layers).
const ATTENTION_GAIN: f32 = 0.25;
const FFN_GAIN: f32 = 0.5;

pub(super) struct List<'a> {
    pub dims: &'a Dims,
    pub layer: u32,
    pub tensors: Vec<TensorSpec>,
}

impl List<'_> {
    /// An embedding for each token.
    pub fn embeddings(&mut self) {
        let shape = &[self.dims.embedding, self.dims.vocab];
        self.push("token_embd.weight", shape, TensorClass::Embedding, Init::Weight { std: 1.0 });
    }

    /// What makes logits.
    pub fn projection(&mut self, embedding: u64, vocab: u64) {
        let std = LOGIT_STD / (embedding as f32).sqrt();
        self.push("output.weight", &[embedding, vocab], TensorClass::Output, Init::Weight { std });
    }

    pub fn push(&mut self, name: impl Into<String>, shape: &[u64], class: TensorClass, init: Init) {
        let (name, shape) = (name.into(), shape.to_vec());
        self.tensors.push(TensorSpec { name, shape, class, layer: self.layer, init });
    }

    pub fn name(&self, part: &str) -> String {
        format!("blk.{}.{part}", self.layer)
    }

    pub fn norm_named(&mut self, name: impl Into<String>, len: u64) {
        self.around_named(name, &[len], 1.0, 0.2);
    }

    pub fn around_named(&mut self, name: impl Into<String>, shape: &[u64], mean: f32, spread: f32) {
        self.push(name, shape, TensorClass::Plain, Init::Around { mean, spread });
    }

    /// Floats of a layer that are drawn around a number.
    pub fn around(&mut self, part: &str, shape: &[u64], mean: f32, spread: f32) {
        self.around_named(self.name(part), shape, mean, spread);
    }

    pub fn norm(&mut self, part: &str, len: u64) {
        let name = self.name(&format!("{part}.weight"));
        self.norm_named(name, len);
    }

    pub fn bias(&mut self, part: &str, shape: &[u64], spread: f32) {
        self.around(&format!("{part}.bias"), shape, 0.0, spread);
    }

    /// A matrix (or stack of matrices) that takes `shape[0]` inputs.
    pub fn matrix(&mut self, part: &str, shape: &[u64], class: TensorClass) {
        let fan_in = shape.first().copied().unwrap_or(1);
        self.matrix_of_fan_in(part, shape, class, fan_in);
    }

    pub fn matrix_of_fan_in(&mut self, part: &str, shape: &[u64], class: TensorClass, fan_in: u64) {
        self.matrix_of_std(part, shape, class, 1.0 / (fan_in as f32).sqrt());
    }

    /// A matrix whose output is added to the residual stream.
    pub fn residual(&mut self, part: &str, shape: &[u64], class: TensorClass) {
        let fan_in = shape.first().copied().unwrap_or(1);
        let gain = if class == TensorClass::Attention { ATTENTION_GAIN } else { FFN_GAIN };
        self.matrix_of_std(part, shape, class, gain / (fan_in as f32).sqrt());
    }

    pub fn matrix_of_std(&mut self, part: &str, shape: &[u64], class: TensorClass, std: f32) {
        let name = self.name(&format!("{part}.weight"));
        self.push(name, shape, class, Init::Weight { std });
    }
}

//! Seconds of arithmetic and of dispatch, from what was measured for each type of weight.

use crate::gguf::GgmlType;
use crate::model::{ModelShape, ModelTensor, TensorRole};
use crate::profile::{AttentionRate, MatmulRate, Profile};

/// Rates for every type of weight in a model.
pub(super) struct Rates {
    by_type: Vec<(GgmlType, TypeRates)>,
    /// One small node.
    pub node_s: f64,
    /// One graph call.
    pub call_s: f64,
    /// What a call takes longer after waiting for the disk.
    pub wake_s: f64,
    /// Reading memory: what bounds attention over the KV cache where it was not measured.
    memory_bytes_per_s: f64,
    attention: AttentionRate,
    pub assumptions: Vec<String>,
}

#[derive(Clone, Copy)]
struct TypeRates {
    decode: f64,
    expert: f64,
    prefill: f64,
    expert_prefill: f64,
}

/// Seconds of a token that is computed alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct TokenCompute {
    /// Weights that every token passes, and attention.
    pub dense_s: f64,
    /// All experts that a token uses.
    pub experts_s: f64,
    /// Dispatch of nodes, calls of streamed nodes not included.
    pub sync_s: f64,
}

impl Rates {
    /// Rates for the weights of `shape`; `None` when nothing at all was measured. Types that were not
    /// measured take the slowest rate that was, in bytes, and the fact is noted.
    pub fn of(shape: &ModelShape, profile: &Profile) -> Option<Self> {
        let slowest = |pick: fn(&MatmulRate) -> Option<f64>| {
            let rates = profile.matmul.iter().filter_map(pick).filter(|rate| *rate > 0.0);
            rates.min_by(f64::total_cmp)
        };
        let any_decode = slowest(|rate| rate.decode_bytes_per_s)?;
        let any_prefill = slowest(|rate| rate.prefill_flops_per_s)?;
        let mut types: Vec<GgmlType> = multiplied(shape).map(|tensor| tensor.info.ty).collect();
        types.sort_unstable();
        types.dedup();
        let mut assumptions = Vec::new();
        let by_type = types
            .into_iter()
            .map(|ty| {
                let rate = profile.matmul_of(ty);
                if rate.is_none() {
                    assumptions.push(format!("{ty} weights compute like the slowest type measured"));
                }
                let decode = rate.and_then(|rate| rate.decode_bytes_per_s).unwrap_or(any_decode);
                let expert = rate.and_then(|rate| rate.expert_bytes_per_s).unwrap_or(decode);
                let prefill = rate.and_then(|rate| rate.prefill_flops_per_s).unwrap_or(any_prefill);
                let expert_prefill = rate.and_then(|rate| rate.expert_prefill_flops_per_s).unwrap_or(prefill);
                (ty, TypeRates { decode, expert, prefill, expert_prefill })
            })
            .collect();
        Some(Self {
            by_type,
            node_s: profile.overhead.node_s.unwrap_or(0.0),
            call_s: profile.overhead.call_s.unwrap_or(0.0),
            wake_s: profile.overhead.wake_s.unwrap_or(0.0),
            memory_bytes_per_s: profile.memory.read_bytes_per_s.unwrap_or(any_decode),
            attention: profile.attention,
            assumptions,
        })
    }

    fn of_type(&self, ty: GgmlType) -> Option<TypeRates> {
        self.by_type.iter().find(|(known, _)| *known == ty).map(|(_, rates)| *rates)
    }

    /// One token with `past_tokens` before it.
    pub fn token(&self, shape: &ModelShape, past_tokens: f64) -> TokenCompute {
        let mut compute = TokenCompute::default();
        for tensor in multiplied(shape) {
            let Some(rates) = self.of_type(tensor.info.ty) else { continue };
            let bytes = tensor.info.bytes as f64;
            match tensor.role {
                TensorRole::RoutedExpert(_) => {
                    compute.experts_s += bytes * used_share(shape, tensor) / rates.expert;
                }
                _ => compute.dense_s += bytes / rates.decode,
            }
        }
        compute.dense_s += past_tokens
            * match self.attention.decode_flops_per_s {
                Some(rate) => attention_flops(shape) / rate,
                None => kv_token_bytes(shape) / self.memory_bytes_per_s,
            };
        compute.sync_s = nodes(shape) * self.node_s;
        compute
    }

    /// A matrix that every token passes, for one token; 0 for a type without rates.
    fn matrix_s(&self, tensor: &ModelTensor) -> f64 {
        self.of_type(tensor.info.ty).map_or(0.0, |rates| tensor.info.bytes as f64 / rates.decode)
    }

    /// The output matrix for one token: the end of a token, in which the next one is unknown.
    pub fn head_s(&self, shape: &ModelShape) -> f64 {
        let is_head =
            |tensor: &&ModelTensor| matches!(tensor.role, TensorRole::Output | TensorRole::Embedding);
        multiplied(shape).filter(is_head).map(|tensor| self.matrix_s(tensor)).sum()
    }

    /// The router of a layer, for one token.
    pub fn router_s(&self, shape: &ModelShape, layer: u32) -> f64 {
        let of_layer =
            |tensor: &&ModelTensor| tensor.layer == Some(layer) && tensor.role == TensorRole::Router;
        multiplied(shape).filter(of_layer).map(|tensor| self.matrix_s(tensor)).sum()
    }

    /// `tokens` tokens at once after `past_tokens`: seconds of everything but experts, and of experts.
    pub fn batch(&self, shape: &ModelShape, tokens: f64, past_tokens: f64) -> (f64, f64) {
        let (mut dense, mut experts) = (0.0, 0.0);
        for tensor in multiplied(shape) {
            let Some(rates) = self.of_type(tensor.info.ty) else { continue };
            let flops = 2.0 * elements(tensor);
            match tensor.role {
                TensorRole::RoutedExpert(_) => {
                    experts += flops * tokens * used_share(shape, tensor) / rates.expert_prefill;
                }
                // Logits are computed for the last token of the prompt only.
                TensorRole::Output | TensorRole::Embedding => {
                    dense += tensor.info.bytes as f64 / rates.decode;
                }
                _ => dense += flops * tokens / rates.prefill,
            }
        }
        let attended = past_tokens + tokens / 2.0;
        let slowest = self.by_type.iter().map(|(_, rates)| rates.prefill).fold(f64::MAX, f64::min);
        let rate = self.attention.prefill_flops_per_s.unwrap_or(slowest);
        dense += tokens * attended * attention_flops(shape) / rate;
        (dense + nodes(shape) * self.node_s, experts)
    }
}

/// Tensors that a matrix multiplication reads when a token passes the model.
fn multiplied(shape: &ModelShape) -> impl Iterator<Item = &ModelTensor> {
    let has_output = shape.tensors.iter().any(|tensor| tensor.role == TensorRole::Output);
    let layers = shape.layers;
    shape.tensors.iter().filter(move |tensor| {
        let in_model = tensor.layer.is_none_or(|layer| layer < layers);
        let is_matrix = tensor.info.shape.len() > 1 && tensor.info.shape.get(1).is_some_and(|rows| *rows > 1);
        let used = match tensor.role {
            TensorRole::Embedding => !has_output && tensor.info.name == "token_embd.weight",
            TensorRole::Norm | TensorRole::Other => false,
            _ => true,
        };
        in_model && is_matrix && used
    })
}

/// Share of a stack of experts that one token uses.
fn used_share(shape: &ModelShape, tensor: &ModelTensor) -> f64 {
    let layer = tensor.layer.and_then(|layer| shape.expert_layer(layer));
    layer.map_or(0.0, |layer| f64::from(layer.used) / f64::from(layer.experts.max(1)))
}

fn elements(tensor: &ModelTensor) -> f64 {
    tensor.info.shape.iter().map(|n| *n as f64).product()
}

/// Bytes of keys and values that attention reads for each earlier token, in f16.
fn kv_token_bytes(shape: &ModelShape) -> f64 {
    shape.kv_bytes_per_token(GgmlType::F16, GgmlType::F16).unwrap_or(0) as f64
}

/// Operations of attention for each pair of tokens: scores and weighted values.
fn attention_flops(shape: &ModelShape) -> f64 {
    let layers = shape.layer_shapes.iter().take(shape.layers as usize);
    layers.map(|layer| 2.0 * layer.heads as f64 * (layer.key_len as f64 + layer.value_len as f64)).sum()
}

/// Nodes of a graph that are dispatched to threads (views are not), by a rule of thumb: two for each tensor
/// of a layer, and for routing eight and one for each expert used.
pub(super) fn nodes(shape: &ModelShape) -> f64 {
    let in_model = |tensor: &&ModelTensor| tensor.layer.is_none_or(|layer| layer < shape.layers);
    let of_tensors = 2 * shape.tensors.iter().filter(in_model).count();
    let of_routing: f64 = shape.expert_layers.iter().map(|layer| f64::from(layer.used) + 8.0).sum();
    of_tensors as f64 + of_routing
}

//! Seconds of arithmetic and of dispatch, from what was measured for each type of weight.

use crate::gguf::GgmlType;
use crate::model::{ModelShape, ModelTensor, TensorRole};
use crate::plan::{Homes, Plan, PoolId};
use crate::profile::{AttentionRate, MatmulRate, Overhead, Profile};

/// Rates for every type of weight in a model, on the processor and on the GPU that has a part of it.
pub(super) struct Rates<'a> {
    plan: &'a Plan,
    host: UnitRates,
    /// `None` where all layers are the host's.
    gpu: Option<UnitRates>,
    /// What a call takes longer after waiting for the disk.
    pub wake_s: f64,
    /// Reading memory: what bounds attention over the KV cache where it was not measured.
    memory_bytes_per_s: f64,
    /// Uploads to the GPU; `None` where that was not measured.
    upload_bytes_per_s: Option<f64>,
    pub assumptions: Vec<String>,
}

/// Rates of one unit that computes.
struct UnitRates {
    by_type: Vec<(GgmlType, TypeRates)>,
    attention: AttentionRate,
    /// One small node.
    node_s: f64,
    /// One graph call; of a GPU with the wait for it.
    call_s: f64,
}

#[derive(Clone, Copy)]
struct TypeRates {
    decode: f64,
    expert: f64,
    prefill: f64,
    expert_prefill: f64,
}

impl UnitRates {
    /// `None` when nothing at all was measured. Types that were not measured take the slowest rate that was,
    /// in bytes, and the fact is noted.
    fn of(
        types: &[GgmlType],
        matmul: &[MatmulRate],
        (attention, overhead): (AttentionRate, Overhead),
        assumptions: &mut Vec<String>,
    ) -> Option<Self> {
        let slowest = |pick: fn(&MatmulRate) -> Option<f64>| {
            let rates = matmul.iter().filter_map(pick).filter(|rate| *rate > 0.0);
            rates.min_by(f64::total_cmp)
        };
        let any_decode = slowest(|rate| rate.decode_bytes_per_s)?;
        let any_prefill = slowest(|rate| rate.prefill_flops_per_s)?;
        let mut rates_of = |ty: &GgmlType| {
            let rate = MatmulRate::of(matmul, *ty);
            if rate.is_none() {
                assumptions.push(format!("{ty} weights compute like the slowest type measured"));
            }
            let decode = rate.and_then(|rate| rate.decode_bytes_per_s).unwrap_or(any_decode);
            let expert = rate.and_then(|rate| rate.expert_bytes_per_s).unwrap_or(decode);
            let prefill = rate.and_then(|rate| rate.prefill_flops_per_s).unwrap_or(any_prefill);
            let expert_prefill = rate.and_then(|rate| rate.expert_prefill_flops_per_s).unwrap_or(prefill);
            (*ty, TypeRates { decode, expert, prefill, expert_prefill })
        };
        Some(Self {
            by_type: types.iter().map(&mut rates_of).collect(),
            attention,
            node_s: overhead.node_s.unwrap_or(0.0),
            call_s: overhead.call_s.unwrap_or(0.0),
        })
    }

    fn of_type(&self, ty: GgmlType) -> Option<TypeRates> {
        self.by_type.iter().find(|(known, _)| *known == ty).map(|(_, rates)| *rates)
    }

    fn slowest_decode(&self) -> f64 {
        self.by_type.iter().map(|(_, rates)| rates.decode).fold(f64::MAX, f64::min)
    }

    fn slowest_prefill(&self) -> f64 {
        self.by_type.iter().map(|(_, rates)| rates.prefill).fold(f64::MAX, f64::min)
    }
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

impl<'a> Rates<'a> {
    /// Rates for the weights of `shape` where the plan has them.
    ///
    /// # Errors
    /// What was not measured at all.
    pub fn of(shape: &ModelShape, plan: &'a Plan, profile: &Profile) -> Result<Self, String> {
        let mut types: Vec<GgmlType> = multiplied(shape).map(|tensor| tensor.info.ty).collect();
        types.sort_unstable();
        types.dedup();
        let mut assumptions = Vec::new();
        let extras = (profile.attention, profile.overhead);
        let host = UnitRates::of(&types, &profile.matmul, extras, &mut assumptions);
        let host = host.ok_or("the speed of the processor")?;
        let uses_gpu = plan.homes.device().is_some() || plan.homes.streamed_experts != PoolId::HOST;
        let rates = profile.gpu.as_ref().filter(|_| uses_gpu);
        let gpu = rates.and_then(|gpu| {
            UnitRates::of(&types, &gpu.matmul, (gpu.attention, gpu.overhead), &mut assumptions)
        });
        if uses_gpu && gpu.is_none() {
            return Err("the speed of the GPU".to_owned());
        }
        let memory_bytes_per_s = profile.memory.read_bytes_per_s.unwrap_or(host.slowest_decode());
        let wake_s = profile.overhead.wake_s.unwrap_or(0.0);
        let upload_bytes_per_s = rates.and_then(|gpu| gpu.upload_bytes_per_s);
        Ok(Self { plan, host, gpu, wake_s, memory_bytes_per_s, upload_bytes_per_s, assumptions })
    }

    /// Who computes with a tensor.
    fn unit(&self, tensor: &ModelTensor) -> &UnitRates {
        let streams = tensor.role.is_routed_expert() && self.computes_streamed_on_gpu();
        let there = streams || self.plan.homes.of(tensor) != PoolId::HOST;
        self.gpu.as_ref().filter(|_| there).unwrap_or(&self.host)
    }

    /// Whether the GPU computes streamed experts, from slots of its own.
    pub fn computes_streamed_on_gpu(&self) -> bool {
        self.plan.experts.is_some() && self.plan.homes.streamed_experts != PoolId::HOST
    }

    /// Whether the GPU computes dense weights that stream.
    pub fn computes_dense_on_gpu(&self) -> bool {
        self.plan.homes.streamed_dense != PoolId::HOST
    }

    /// Uploading so many bytes; `None` where that was not measured.
    pub fn upload_s(&self, bytes: f64) -> Option<f64> {
        if bytes <= 0.0 { Some(0.0) } else { self.upload_bytes_per_s.map(|rate| bytes / rate) }
    }

    /// One graph call of who computes streamed weights, on a GPU with the wait for it.
    pub fn call_s(&self) -> f64 {
        let on_gpu = self.computes_streamed_on_gpu() || self.computes_dense_on_gpu();
        let gpu = self.gpu.as_ref().filter(|_| on_gpu);
        gpu.unwrap_or(&self.host).call_s
    }

    /// The unit that computes attention, as far as one says it for all layers.
    fn attention_unit(&self) -> &UnitRates {
        let first = self.plan.homes.layers.last().is_some_and(|home| home.dense != PoolId::HOST);
        self.gpu.as_ref().filter(|_| first).unwrap_or(&self.host)
    }

    /// Dispatch of all nodes of a graph, and one call of each unit for each layer that it leaves to the
    /// other; one at least.
    fn dispatch_s(&self, shape: &ModelShape) -> f64 {
        let Some(gpu) = &self.gpu else { return nodes(shape) * self.host.node_s };
        let homes = &self.plan.homes;
        let there = f64::from(homes.device_layers()) / f64::from(Homes::most_layers(shape).max(1));
        let splits = homes.layers.iter().filter(|home| home.dense != home.experts).count().max(1);
        let counted = self.computes_streamed_on_gpu() || self.computes_dense_on_gpu();
        let calls = if counted { 0.0 } else { splits as f64 * gpu.call_s };
        nodes(shape) * (gpu.node_s * there + self.host.node_s * (1.0 - there)) + calls
    }

    /// One token with `past_tokens` before it.
    pub fn token(&self, shape: &ModelShape, past_tokens: f64) -> TokenCompute {
        let mut compute = TokenCompute::default();
        for tensor in multiplied(shape) {
            let Some(rates) = self.unit(tensor).of_type(tensor.info.ty) else { continue };
            let bytes = tensor.info.bytes as f64;
            match tensor.role {
                TensorRole::RoutedExpert(_) => {
                    compute.experts_s += bytes * used_share(shape, tensor) / rates.expert;
                }
                _ => compute.dense_s += bytes / rates.decode,
            }
        }
        compute.dense_s += past_tokens
            * match self.attention_unit().attention.decode_flops_per_s {
                Some(rate) => attention_flops(shape) / rate,
                None => kv_token_bytes(shape) / self.memory_bytes_per_s,
            };
        compute.sync_s = self.dispatch_s(shape);
        compute
    }

    /// A matrix that every token passes, for one token; 0 for a type without rates.
    fn matrix_s(&self, tensor: &ModelTensor) -> f64 {
        let rates = self.unit(tensor).of_type(tensor.info.ty);
        rates.map_or(0.0, |rates| tensor.info.bytes as f64 / rates.decode)
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
            let Some(rates) = self.unit(tensor).of_type(tensor.info.ty) else { continue };
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
        let unit = self.attention_unit();
        let rate = unit.attention.prefill_flops_per_s.unwrap_or(unit.slowest_prefill());
        dense += tokens * attended * attention_flops(shape) / rate;
        (dense + self.dispatch_s(shape), experts)
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

//! A model as a whole: what the planner and the engine ask about it.
//!
//! Invariants: tensors are in file order and their roles follow from their names; `layer_shapes` has one
//! entry for each layer of the file; expert layers ascend.

use std::collections::BTreeMap;

use super::experts::{find_layers, size_classes};
use super::layers::{ArchKeys, MAX_LAYERS, layer_shapes};
use super::roles::NameParts;
use super::{
    ExpertKey, ExpertLayer, ExpertPart, ExpertSlice, LayerShape, ModelError, ModelTensor, SizeClass,
    TensorRole, asserts, tables,
};
use crate::gguf::{GgufSet, Metadata, TensorInfo};

const ARCHITECTURE_KEY: &str = "general.architecture";

/// A model as its GGUF describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    /// llama.cpp's name of the architecture, for instance `qwen3moe`.
    pub architecture: String,
    /// The model's own name.
    pub name: Option<String>,
    /// Layers that every token passes. Layers of multi-token prediction come after them.
    pub layers: u32,
    /// Layers of multi-token prediction (`nextn_predict_layers`), which llama.cpp loads only when asked to.
    pub nextn_layers: u32,
    /// Width of the hidden state.
    pub embedding: u64,
    /// Hidden states beside each other that layers mix their input from (hyper-connections); 1 in most
    /// models.
    pub residual_streams: u64,
    /// Whether a token sees only those before it. Encoders look both ways.
    pub is_causal: bool,
    /// Context length in training.
    pub context_train: u64,
    /// Tokens in the vocabulary.
    pub vocab: u64,
    /// Routed experts of the layer that has most; 0 in a dense model.
    pub experts: u32,
    /// Routed experts that a token uses in the layer that uses most; 0 in a dense model.
    pub experts_used: u32,
    /// Shared experts of a layer.
    pub shared_experts: u32,
    /// Attention of each layer: `layers` and then `nextn_layers` of them.
    pub layer_shapes: Vec<LayerShape>,
    /// All tensors.
    pub tensors: Vec<ModelTensor>,
    /// The layers that have routed experts, ascending.
    pub expert_layers: Vec<ExpertLayer>,
    /// The same for the layers of multi-token prediction.
    pub nextn_expert_layers: Vec<ExpertLayer>,
}

impl ModelShape {
    /// Reads what a model is from its GGUF.
    pub fn from_gguf(gguf: &GgufSet) -> Result<Self, ModelError> {
        let metadata = &gguf.metadata;
        let missing = |key: &str| ModelError::MissingKey { key: key.to_owned() };
        let architecture = metadata.str(ARCHITECTURE_KEY)?.ok_or_else(|| missing(ARCHITECTURE_KEY))?;
        let keys = ArchKeys { metadata, arch: architecture };
        let all_layers = in_range(&keys, "block_count", keys.required("block_count")?, 1, MAX_LAYERS)?;
        let nextn = keys.u64("nextn_predict_layers")?.unwrap_or(0);
        let nextn_layers = in_range(&keys, "nextn_predict_layers", nextn, 0, all_layers.into())?;
        let layers = all_layers - nextn_layers;
        let embedding = keys.required("embedding_length")?;

        asserts::check_vocabulary(metadata)?;
        let mut tensors = classify(&gguf.tensors)?;
        tables::settle(&mut tensors, &keys)?;
        asserts::check_tensors(&tensors)?;
        let used = keys.per_layer("expert_used_count", all_layers)?.unwrap_or_default();
        let used = |layer: u32| used.get(layer as usize).copied().unwrap_or(0);
        let mut expert_layers = find_layers(&tensors, all_layers, used)?;
        asserts::check_keys(&keys, all_layers, expert_layers.is_empty())?;
        let nextn_expert_layers =
            expert_layers.split_off(expert_layers.partition_point(|e| e.layer < layers));
        let has_shared = tensors.iter().any(|tensor| tensor.role == TensorRole::SharedExpert);
        Ok(Self {
            architecture: architecture.to_owned(),
            name: metadata.str("general.name")?.map(str::to_owned),
            layers,
            nextn_layers,
            embedding,
            residual_streams: keys.u64("hyper_connection.count")?.unwrap_or(1).max(1),
            is_causal: metadata.bool(&keys.key("attention.causal")).ok().flatten().unwrap_or(true),
            context_train: keys.required("context_length")?,
            vocab: vocabulary(metadata, &keys, &tensors)?,
            experts: expert_layers.iter().map(|layer| layer.experts).max().unwrap_or(0),
            experts_used: expert_layers.iter().map(|layer| layer.used).max().unwrap_or(0),
            shared_experts: metadata.u32(&keys.key("expert_shared_count"))?.unwrap_or(has_shared.into()),
            layer_shapes: layer_shapes(&keys, all_layers, embedding, &gguf.tensors)?,
            tensors,
            expert_layers,
            nextn_expert_layers,
        })
    }

    /// Whether no layer routes to experts.
    pub fn is_dense(&self) -> bool {
        self.expert_layers.is_empty()
    }

    /// The routed experts of a layer; `None` where there are none.
    pub fn expert_layer(&self, layer: u32) -> Option<&ExpertLayer> {
        let find = |layers: &[ExpertLayer]| layers.binary_search_by_key(&layer, |found| found.layer);
        match find(&self.expert_layers) {
            Ok(at) => self.expert_layers.get(at),
            Err(_) => find(&self.nextn_expert_layers).ok().and_then(|at| self.nextn_expert_layers.get(at)),
        }
    }

    /// Layers before the first one that routes to experts; all of them in a dense model.
    pub fn leading_dense_layers(&self) -> u32 {
        self.expert_layers.first().map_or(self.layers, |first| first.layer)
    }

    /// Where one part of an expert lies; `None` when the model has no such expert or part.
    pub fn slice(&self, key: ExpertKey, part: ExpertPart) -> Option<ExpertSlice> {
        let stack = self.expert_layer(key.layer)?.part(part)?;
        stack.slice(self.tensors.get(stack.tensor)?, key.expert)
    }

    /// All parts of an expert, in the order gate, up, gate_up, down; none when the model has no such expert.
    pub fn slices(&self, key: ExpertKey) -> impl Iterator<Item = (ExpertPart, ExpertSlice)> {
        let parts = self.expert_layer(key.layer).map_or(&[][..], |layer| &layer.parts);
        parts.iter().filter_map(move |stack| {
            let slice = stack.slice(self.tensors.get(stack.tensor)?, key.expert)?;
            Some((stack.part, slice))
        })
    }

    /// Layers grouped by the sizes of their experts' parts (without those of multi-token prediction).
    pub fn size_classes(&self) -> Vec<SizeClass> {
        size_classes(&self.expert_layers)
    }

    /// Bytes of tensor data by role.
    pub fn bytes_by_role(&self) -> BTreeMap<TensorRole, u64> {
        let mut bytes = BTreeMap::new();
        for tensor in &self.tensors {
            let of_role: &mut u64 = bytes.entry(tensor.role).or_default();
            *of_role = of_role.saturating_add(tensor.info.bytes);
        }
        bytes
    }

    /// Bytes of all tensor data.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.info.bytes).fold(0, u64::saturating_add)
    }

    /// Bytes of all routed experts, those of multi-token prediction included.
    pub fn routed_bytes(&self) -> u64 {
        let routed = |tensor: &&ModelTensor| matches!(tensor.role, TensorRole::RoutedExpert(_));
        self.tensors.iter().filter(routed).map(|tensor| tensor.info.bytes).fold(0, u64::saturating_add)
    }

    /// Bytes of the routed experts that one token uses: what decoding reads when nothing is cached.
    pub fn routed_bytes_per_token(&self) -> u64 {
        let of_layer = |layer: &ExpertLayer| u64::from(layer.used).saturating_mul(layer.expert_bytes());
        self.expert_layers.iter().map(of_layer).fold(0, u64::saturating_add)
    }

    /// Bytes of weights that computing one token touches: everything but unused experts, multi-token
    /// prediction, and embedding tables, of which it reads a row (unless the table is the output projection
    /// too).
    pub fn active_bytes_per_token(&self) -> u64 {
        let has_output = self.tensors.iter().any(|tensor| tensor.role == TensorRole::Output);
        let touched = |tensor: &&ModelTensor| match tensor.role {
            TensorRole::RoutedExpert(_) => false,
            TensorRole::Embedding => !has_output && tensor.info.name == "token_embd.weight",
            _ => tensor.layer.is_none_or(|layer| layer < self.layers),
        };
        let touched = self.tensors.iter().filter(touched).map(|tensor| tensor.info.bytes);
        touched.fold(self.routed_bytes_per_token(), u64::saturating_add)
    }
}

fn in_range(keys: &ArchKeys<'_>, name: &str, value: u64, least: u64, most: u64) -> Result<u32, ModelError> {
    let error = || ModelError::OutOfRange { key: keys.key(name), value, least, most };
    u32::try_from(value).ok().filter(|_| (least..=most).contains(&value)).ok_or_else(error)
}

fn classify(tensors: &[TensorInfo]) -> Result<Vec<ModelTensor>, ModelError> {
    let classify = |info: &TensorInfo| {
        let parts = NameParts::of(&info.name);
        if parts.is_unstacked_expert() {
            return Err(ModelError::UnstackedExperts { name: info.name.clone() });
        }
        let (role, streaming, layer) = (parts.role(), parts.streaming(&info.shape), parts.layer);
        Ok(ModelTensor { info: info.clone(), role, streaming, layer })
    };
    tensors.iter().map(classify).collect()
}

/// Tokens of the vocabulary, else what the architecture's key says, else the rows of the embedding.
fn vocabulary(metadata: &Metadata, keys: &ArchKeys<'_>, tensors: &[ModelTensor]) -> Result<u64, ModelError> {
    if let Some(tokens) = metadata.str_array("tokenizer.ggml.tokens")? {
        return Ok(tokens.len() as u64);
    }
    if let Some(size) = keys.u64("vocab_size")? {
        return Ok(size);
    }
    let embedding = tensors.iter().find(|tensor| tensor.info.name == "token_embd.weight");
    Ok(embedding.and_then(|tensor| tensor.info.shape.get(1)).copied().unwrap_or(0))
}

//! Attention and recurrence of each layer, as llama.cpp derives them from metadata (`llama-model.cpp`,
//! `llama_model_base::load_hparams`, and the `load_arch_hparams` of `models/*.cpp`).

use super::ModelError;
use super::roles::NameParts;
use crate::gguf::{Metadata, TensorInfo, Value};

/// Most layers accepted (`LLAMA_MAX_LAYERS`).
pub(super) const MAX_LAYERS: u64 = 512;

/// What one layer remembers of the past, and how it attends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerShape {
    /// Query heads; 0 in layers without attention.
    pub heads: u64,
    /// Heads of keys and values; 0 in layers without attention.
    pub kv_heads: u64,
    /// Elements of a head's key.
    pub key_len: u64,
    /// Elements of a head's value.
    pub value_len: u64,
    /// Whether values are read from the keys (multi-head latent attention): no values are cached.
    pub latent: bool,
    /// Whether the layer has keys of its own; some layers read another layer's.
    pub caches_keys: bool,
    /// How many tokens back the layer attends; `None` is all.
    pub window: Option<u64>,
    /// Elements of the keys of a sparse-attention indexer, cached besides the others; 0 without one.
    pub indexer_key_len: u64,
    /// Bytes of recurrent state of one sequence, whatever its length; 0 in layers without.
    pub recurrent_bytes: u64,
}

/// Windowed layers where no `attention.sliding_window_pattern` says which: all but one of every `period`
/// layers, the first or the last of them. From the calls of `load_swa_pattern` that depend on nothing but a
/// window being given. For architectures that are not listed, all layers count as unwindowed: too much cache
/// is planned rather than too little.
const WINDOW_PATTERNS: &[(&str, u64, FullLayer)] = &[
    ("afmoe", 4, FullLayer::Last),
    ("cohere2", 4, FullLayer::Last),
    ("cohere2moe", 4, FullLayer::First),
    ("exaone-moe", 4, FullLayer::Last),
    ("gemma2", 2, FullLayer::Last),
    ("gemma3", 6, FullLayer::Last),
    ("gemma3n", 5, FullLayer::Last),
    ("gpt-oss", 2, FullLayer::Last),
    ("laguna", 4, FullLayer::First),
    ("mellum", 4, FullLayer::Last),
    ("olmo2", 4, FullLayer::Last),
    ("plamo3", 8, FullLayer::Last),
    ("smallthinker", 4, FullLayer::First),
];

/// Which layer of a period attends to everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FullLayer {
    First,
    Last,
}

/// Reads keys of one architecture: `{arch}.…`.
pub(super) struct ArchKeys<'a> {
    pub metadata: &'a Metadata,
    pub arch: &'a str,
}

impl ArchKeys<'_> {
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    pub fn u64(&self, name: &str) -> Result<Option<u64>, ModelError> {
        Ok(self.metadata.u64(&self.key(name))?)
    }

    pub fn required(&self, name: &str) -> Result<u64, ModelError> {
        self.u64(name)?.ok_or_else(|| ModelError::MissingKey { key: self.key(name) })
    }

    /// A number for all layers or one for each; `None` when the key is absent.
    pub fn per_layer(&self, name: &str, layers: u32) -> Result<Option<Vec<u64>>, ModelError> {
        let key = self.key(name);
        if !matches!(self.metadata.get(&key), Some(Value::Array(_))) {
            return Ok(self.metadata.u64(&key)?.map(|value| vec![value; layers as usize]));
        }
        let values = self.metadata.u64_array(&key)?.unwrap_or_default();
        if values.len() < layers as usize {
            return Err(ModelError::PerLayerLength { key, found: values.len(), layers });
        }
        Ok(Some(values))
    }
}

/// Derives the shapes of all `layers` layers (those of multi-token prediction included).
pub(super) fn layer_shapes(
    keys: &ArchKeys<'_>,
    layers: u32,
    embedding: u64,
    tensors: &[TensorInfo],
) -> Result<Vec<LayerShape>, ModelError> {
    let all = |value: u64| vec![value; layers as usize];
    let heads = keys.per_layer("attention.head_count", layers)?.unwrap_or_else(|| all(0));
    let kv_heads = keys.per_layer("attention.head_count_kv", layers)?.unwrap_or_else(|| heads.clone());
    let default_len = heads.first().and_then(|&heads| embedding.checked_div(heads)).unwrap_or(0);
    let key_len = keys.u64("attention.key_length")?.unwrap_or(default_len);
    let value_len = keys.u64("attention.value_length")?.unwrap_or(default_len);
    let key_len_windowed = keys.u64("attention.key_length_swa")?.unwrap_or(key_len);
    let value_len_windowed = keys.u64("attention.value_length_swa")?.unwrap_or(value_len);
    let has = |name| -> Result<bool, ModelError> { Ok(keys.u64(name)?.unwrap_or(0) > 0) };
    let latent = has("attention.key_length_mla")? && has("attention.value_length_mla")?;
    let windows = windows(keys, layers)?;
    let own_keys = u64::from(layers).saturating_sub(keys.u64("attention.shared_kv_layers")?.unwrap_or(0));
    let indexer_key_len = indexer_key_len(keys)?;
    let held = held_by_layer(tensors, layers);
    let state_bytes = recurrent_bytes(keys, embedding, heads.first().copied().unwrap_or(0))?;
    let ngram = keys.u64("ple.ngram_size")?.unwrap_or(0);

    let mut shapes = Vec::with_capacity(held.len());
    for (index, (held, window)) in held.into_iter().zip(windows).enumerate() {
        let of_layer = |values: &[u64]| values.get(index).copied().unwrap_or(0);
        let kv_heads = of_layer(&kv_heads);
        shapes.push(LayerShape {
            heads: of_layer(&heads),
            kv_heads,
            key_len: if window.is_some() { key_len_windowed } else { key_len },
            value_len: if window.is_some() { value_len_windowed } else { value_len },
            latent,
            caches_keys: held.keys && kv_heads > 0 && (index as u64) < own_keys,
            window,
            indexer_key_len: if held.indexer { indexer_key_len } else { 0 },
            recurrent_bytes: (if held.recurrence { state_bytes } else { 0 }).saturating_add(
                held.ngram_taps.saturating_mul(ngram).saturating_mul(size_of::<f32>() as u64),
            ),
        });
    }
    Ok(shapes)
}

/// What a layer's tensors tell about it.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    keys: bool,
    recurrence: bool,
    indexer: bool,
    /// Numbers that a convolution over what a table of n-grams gave keeps, for each token of an n-gram
    /// (`ple_conv_state` of `llama-hparams.cpp`).
    ngram_taps: u64,
}

/// Which layers cache keys and which keep a recurrent state. The tensors tell this for every architecture;
/// metadata tell it in a different way for each. Linear attention may have a fused `attn_qkv` beside its
/// state (Qwen3-Next), and then caches no keys; a layer with an `attn_k` beside its state is a hybrid that
/// does (Falcon-H1).
fn held_by_layer(tensors: &[TensorInfo], layers: u32) -> Vec<Held> {
    let mut held = vec![Held::default(); layers as usize];
    let mut fused = vec![false; layers as usize];
    for tensor in tensors {
        let parts = NameParts::of(&tensor.name);
        let Some(layer) = parts.layer.map(|layer| layer as usize) else { continue };
        let (Some(held), Some(fused)) = (held.get_mut(layer), fused.get_mut(layer)) else { continue };
        match parts.base {
            "attn_k" | "attn_kv_a_mqa" | "attn_kv" => held.keys = true,
            "attn_qkv" => *fused = true,
            "ple_conv1d" => held.ngram_taps = earlier_taps(tensor),
            base if base.starts_with("indexer.") => held.indexer = true,
            base if ["ssm_", "time_mix_", "shortconv."].iter().any(|start| base.starts_with(start)) => {
                held.recurrence = true;
            }
            _ => {}
        }
    }
    for (held, fused) in held.iter_mut().zip(fused) {
        held.keys |= fused && !held.recurrence;
    }
    held
}

/// Numbers of a convolution's input that it needs of earlier tokens.
fn earlier_taps(kernel: &TensorInfo) -> u64 {
    let [taps, width] = [0, 1].map(|axis| kernel.shape.get(axis).copied().unwrap_or(0));
    taps.saturating_sub(1).saturating_mul(width)
}

/// Elements that an indexer caches for each cell: its key, and where it pools keys of several cells the
/// pooled one too, and a gate (`indexer_kpool_row` of `llama-hparams.h`).
fn indexer_key_len(keys: &ArchKeys<'_>) -> Result<u64, ModelError> {
    let rows = match keys.arch {
        "qwen4exp" => 2,
        "glm5-next" => 3,
        _ => 1,
    };
    Ok(keys.u64("attention.indexer.key_length")?.unwrap_or(0).saturating_mul(rows))
}

/// The attention window of each layer.
fn windows(keys: &ArchKeys<'_>, layers: u32) -> Result<Vec<Option<u64>>, ModelError> {
    let pattern = keys.key("attention.sliding_window_pattern");
    let window = keys.u64("attention.sliding_window")?.filter(|&window| window > 0);
    let default = WINDOW_PATTERNS.iter().find(|(arch, ..)| *arch == keys.arch);
    let windowed: Vec<bool> = if let Some(Value::Array(_)) = keys.metadata.get(&pattern) {
        let mut flags = keys.metadata.u64_array(&pattern)?.unwrap_or_default();
        // Some files leave out the layers of multi-token prediction, which have no window.
        flags.resize(layers as usize, 0);
        flags.iter().map(|&flag| flag != 0).collect()
    } else {
        let full = default.map_or(FullLayer::Last, |&(.., full)| full);
        let period = keys.metadata.u64(&pattern)?.or(default.map(|&(_, period, _)| period));
        let is_windowed = |layer: u64| match (period, full) {
            (None, _) => false,
            (Some(0), _) => true,
            (Some(period), FullLayer::First) => !layer.is_multiple_of(period),
            (Some(period), FullLayer::Last) => layer % period < period - 1,
        };
        (0..layers.into()).map(is_windowed).collect()
    };
    Ok(windowed.into_iter().map(|windowed| window.filter(|_| windowed)).collect())
}

/// Bytes of one layer's recurrent state for one sequence: `n_embd_r() + n_embd_s()` of `llama-hparams.cpp`,
/// in f32. Best effort: linear attention of other kinds (MiniMax-Text-01's) counts as none.
fn recurrent_bytes(keys: &ArchKeys<'_>, embedding: u64, heads: u64) -> Result<u64, ModelError> {
    let get = |name| keys.u64(name).map(|value| value.unwrap_or(0));
    let conv = get("ssm.conv_kernel")?;
    let (wkv, short, kda) = (get("wkv.head_size")?, get("shortconv.l_cache")?, get("kda.head_dim")?);
    let product = |factors: &[u64]| factors.iter().fold(1_u64, |product, &n| product.saturating_mul(n));
    let elements = if wkv > 0 {
        let shift = keys.u64("token_shift_count")?.unwrap_or(2);
        product(&[shift, embedding]).saturating_add(product(&[embedding, wkv]))
    } else if short > 0 {
        product(&[embedding, short - 1])
    } else if kda > 0 {
        let taps = if conv > 0 { conv - 1 } else { 3 };
        product(&[3, taps, heads, kda]).saturating_add(product(&[kda, kda, heads]))
    } else {
        let (inner, state, groups) =
            (get("ssm.inner_size")?, get("ssm.state_size")?, get("ssm.group_count")?);
        let width = inner.saturating_add(product(&[2, groups, state]));
        product(&[conv.saturating_sub(1), width]).saturating_add(product(&[state, inner]))
    };
    Ok(elements.saturating_mul(size_of::<f32>() as u64))
}

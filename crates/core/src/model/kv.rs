//! The size of the KV cache: the only formula for it in this program.
//!
//! It follows `llama_kv_cache` and `llama_kv_cache_iswa` of llama.cpp: one row of keys and one of values for
//! each cell and layer; layers with a window have a smaller cache; latent attention caches no values;
//! recurrent layers keep a state of fixed size for each sequence. Best effort, and not below llama.cpp's
//! size, for architectures with rules of their own in its code (layers without windows are assumed where it
//! is not known which have them). Assumes flash attention: without it llama.cpp pads the values of all layers
//! to the widest layer's.

use super::{LayerShape, ModelError, ModelShape};
use crate::gguf::GgmlType;

/// llama.cpp rounds the cells of windowed caches up to this (`llama_kv_cache_iswa`).
const WINDOW_CELLS_MULTIPLE: u64 = 256;

/// The cache to size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvRequest {
    /// Tokens that one sequence can hold, or that all can hold together if `unified`.
    pub context_tokens: u64,
    /// Sequences at a time, at least 1.
    pub sequences: u64,
    /// Whether all sequences share one cache.
    pub unified: bool,
    /// Tokens in the largest batch that is computed at once: windowed layers hold them besides the window.
    pub ubatch_tokens: u64,
    /// Type of cached keys.
    pub keys: GgmlType,
    /// Type of cached values.
    pub values: GgmlType,
}

impl KvRequest {
    /// One sequence, keys and values in f16, llama.cpp's usual batch of 512.
    pub fn single(context_tokens: u64) -> Self {
        let (keys, values) = (GgmlType::F16, GgmlType::F16);
        Self { context_tokens, sequences: 1, unified: false, ubatch_tokens: 512, keys, values }
    }

    /// Cells of one stream of a layer.
    fn cells(&self, window: Option<u64>) -> Option<u64> {
        let Some(window) = window else { return Some(self.context_tokens) };
        let sharing = if self.unified { self.sequences.max(1) } else { 1 };
        let held = window.checked_mul(sharing)?.checked_add(self.ubatch_tokens)?;
        held.min(self.context_tokens).checked_next_multiple_of(WINDOW_CELLS_MULTIPLE)
    }

    /// Caches per layer.
    fn streams(&self) -> u64 {
        if self.unified { 1 } else { self.sequences.max(1) }
    }
}

impl LayerShape {
    /// Bytes that the cache of this layer takes for each cell. `layer` is for the message.
    pub fn kv_bytes_per_token(
        &self,
        layer: u32,
        keys: GgmlType,
        values: GgmlType,
    ) -> Result<u64, ModelError> {
        let row = |elements: Option<u64>, ty: GgmlType| {
            let elements = elements.ok_or(ModelError::KvTooLarge)?;
            let (name, block) = (ty.name(), ty.block_elements());
            ty.row_bytes(elements).ok_or(ModelError::KvRow { layer, elements, ty: name, block })
        };
        let indexer = row(Some(self.indexer_key_len), keys)?;
        if !self.caches_keys {
            return Ok(indexer);
        }
        let key_row = row(self.key_len.checked_mul(self.kv_heads), keys)?;
        let value_row = if self.latent { 0 } else { row(self.value_len.checked_mul(self.kv_heads), values)? };
        [key_row, value_row, indexer]
            .iter()
            .try_fold(0_u64, |sum, &n| sum.checked_add(n))
            .ok_or(ModelError::KvTooLarge)
    }
}

impl ModelShape {
    /// Bytes of the KV cache and of recurrent states, all layers together (without those of multi-token
    /// prediction).
    pub fn kv_bytes(&self, request: &KvRequest) -> Result<u64, ModelError> {
        let mut total = 0_u64;
        for (layer, shape) in (0..self.layers).zip(&self.layer_shapes) {
            let per_cell = shape.kv_bytes_per_token(layer, request.keys, request.values)?;
            let bytes = request
                .cells(shape.window)
                .and_then(|cells| cells.checked_mul(request.streams()))
                .and_then(|cells| cells.checked_mul(per_cell))
                .and_then(|cache| {
                    cache.checked_add(shape.recurrent_bytes.checked_mul(request.sequences.max(1))?)
                })
                .and_then(|bytes| total.checked_add(bytes));
            total = bytes.ok_or(ModelError::KvTooLarge)?;
        }
        Ok(total)
    }

    /// What one more token of context costs, once windows are full: layers without a window only.
    pub fn kv_bytes_per_token(&self, keys: GgmlType, values: GgmlType) -> Result<u64, ModelError> {
        let unwindowed = (0..self.layers).zip(&self.layer_shapes).filter(|(_, shape)| shape.window.is_none());
        unwindowed
            .map(|(layer, shape)| shape.kv_bytes_per_token(layer, keys, values))
            .try_fold(0_u64, |sum, bytes| sum.checked_add(bytes?).ok_or(ModelError::KvTooLarge))
    }
}

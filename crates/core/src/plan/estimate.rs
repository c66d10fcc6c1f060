//! What llama.cpp will need besides weights, without asking llama.cpp.
//!
//! Loading measures these numbers exactly (llama.cpp builds its graphs without memory); for a model that is
//! not on this machine there is only the header, so here is arithmetic. A test of the engine holds it against
//! llama.cpp's own figures.

use super::ContextShape;
use super::ledger::{Basis, Ledger, Purpose};
use crate::gguf::GgmlType;
use crate::model::{
    ExpertPart, FfnPart, KvRequest, LayerShape, ModelError, ModelShape, ModelTensor, Streaming, TensorRole,
};

/// llama.cpp rounds the context up to a multiple of this (`llama_context`, `GGML_PAD(n_ctx, 256)`).
const CONTEXT_MULTIPLE: u64 = 256;
/// Tokens of a decode call that may have logits, if there are not more sequences: each takes a row of the
/// vocabulary in llama.cpp's compute buffers, which for all tokens of a ubatch would be most of them.
/// Embedding a text with a model that is not made for it goes in parts of so many tokens.
pub const OUTPUTS: u32 = 64;
/// Bytes of an activation.
const F32: u64 = 4;

/// Estimates KV cache, compute buffers and the process itself, all of them on the host.
///
/// # Errors
/// [`ModelError`] when the KV cache has no size (an element type whose blocks do not divide its rows, or
/// overflow).
pub fn estimate_needs(shape: &ModelShape, request: &ContextShape) -> Result<Ledger, ModelError> {
    let most = if shape.context_train > 0 { shape.context_train } else { u64::MAX };
    let context = u64::from(request.context_tokens).clamp(1, most);
    let ubatch = u64::from(request.ubatch_tokens).clamp(1, context);
    let context = context.next_multiple_of(CONTEXT_MULTIPLE);
    let kv = KvRequest {
        context_tokens: context,
        sequences: u64::from(request.sequences.max(1)),
        unified: true,
        // Windowed layers get the whole context too (`swa_full`, llama.cpp's default), as if a ubatch were
        // that long.
        ubatch_tokens: context,
        keys: request.kv.into(),
        values: request.kv.into(),
    };
    let outputs = u64::from(request.sequences.max(OUTPUTS)).min(ubatch);
    let compute_bytes = compute_bytes(shape, context, ubatch, outputs);
    Ok(Ledger::new()
        .with_host(Purpose::Kv, shape.kv_bytes(&kv)?, Basis::Estimated)
        .with_host(Purpose::Compute, compute_bytes, Basis::Estimated)
        .with_host(Purpose::Process, process_bytes(shape, ubatch), Basis::Estimated))
}

/// What the process takes beside weights, KV cache and compute buffers.
#[must_use]
pub fn process_bytes(shape: &ModelShape, ubatch_tokens: u64) -> u64 {
    /// Code, heap, thread stacks, reader staging; measured on tiny models.
    const BASE: u64 = 40 << 20;
    let rows = ubatch_tokens.saturating_mul(expert_rows(shape));
    BASE.saturating_add(vocabulary_bytes(shape)).saturating_add(rows).saturating_add(router_copies(shape))
}

/// What a vocabulary takes: llama.cpp keeps the text, score and hash entries of each token, and its merges.
#[must_use]
pub fn vocabulary_bytes(shape: &ModelShape) -> u64 {
    const PER_TOKEN: u64 = 450;
    shape.vocab.saturating_mul(PER_TOKEN)
}

/// Routers in floats are there once more in 8 bits, to guess with.
fn router_copies(shape: &ModelShape) -> u64 {
    let routers = shape.tensors.iter().filter(|tensor| tensor.role == TensorRole::Router);
    let copy = |tensor: &ModelTensor| match (tensor.info.ty, tensor.info.shape.as_slice()) {
        (GgmlType::F32, [columns, rows]) => GgmlType::Q8_0.row_bytes(*columns)?.checked_mul(*rows),
        _ => None,
    };
    routers.filter_map(copy).fold(0, u64::saturating_add)
}

/// What experts that are computed one by one need for each token of a ubatch: an expert that all tokens use
/// has their rows gathered, input and result; and the layer's input is there once more in blocks of 8-bit
/// numbers, for the last product one row for each expert of a token.
fn expert_rows(shape: &ModelShape) -> u64 {
    let experts = shape.tensors.iter().filter(|tensor| matches!(tensor.role, TensorRole::RoutedExpert(_)));
    let of_tensor = |tensor: &ModelTensor| {
        let (columns, rows) = (tensor.info.shape.first()?, tensor.info.shape.get(1)?);
        let used = used_experts(shape, tensor);
        let down = matches!(tensor.role, TensorRole::RoutedExpert(ExpertPart::Down));
        let converted = columns.saturating_mul(if down { used } else { 1 });
        // Blocks of 8 bits and their scales take at most 5 bytes for 4 numbers.
        Some(
            columns.saturating_add(*rows).saturating_mul(F32).saturating_add(converted.saturating_mul(5) / 4),
        )
    };
    experts.filter_map(of_tensor).max().unwrap_or(0)
}

/// Compute buffers: what is alive at the same time in the widest place of llama.cpp's graph, and the graph's
/// inputs.
///
/// The allocator of ggml reuses memory once a node's result is consumed, so one place decides: the logits of
/// the tokens that have some, the feed-forward network, or attention. Beside each of them live a few rows of
/// the hidden state. Read off llama.cpp's own figures for the shapes of `synth`, which these formulas meet.
fn compute_bytes(shape: &ModelShape, context: u64, ubatch: u64, outputs: u64) -> u64 {
    /// Hidden states: residual, input, normalised, result and one more; and positions, ids and the like.
    const HIDDEN_ROWS: u64 = 5;
    const SMALL: u64 = 10;
    /// Bytes of a cell of the attention mask.
    const MASK_BYTES: u64 = 2;
    let tables = shape.tensors.iter().map(table_row).fold(0, u64::saturating_add);
    let of_ffn = |tensor| ffn_row(shape, tensor).saturating_add_signed(hole(shape, tensor, tables));
    let feed_forward = shape.tensors.iter().map(of_ffn).max().unwrap_or(0);
    let attention = shape.layer_shapes.iter().map(attention_row).max().unwrap_or(0);
    let widest = feed_forward.max(attention).saturating_mul(ubatch).max(shape.vocab.saturating_mul(outputs));
    let hidden = shape.embedding.saturating_mul(HIDDEN_ROWS).saturating_add(more_streams(shape));
    let row = hidden.saturating_add(SMALL).saturating_add(tables);
    let masks = 1 + u64::from(shape.layer_shapes.iter().any(|layer| layer.window.is_some()));
    let mask = context.saturating_mul(MASK_BYTES * masks);
    let rows = row.saturating_mul(F32).saturating_add(mask).saturating_mul(ubatch);
    rows.saturating_add(widest.saturating_mul(F32))
}

/// Elements that several residual streams take more than one does: the streams, and what they are mixed from.
fn more_streams(shape: &ModelShape) -> u64 {
    if shape.residual_streams == 1 {
        return 0;
    }
    shape.embedding.saturating_mul(shape.residual_streams.saturating_mul(2) - 1)
}

/// Elements that one token reads of a table besides the embedding of tokens: there from the first layer to
/// the last.
fn table_row(tensor: &ModelTensor) -> u64 {
    match (tensor.streaming, tensor.info.shape.first()) {
        (Streaming::Rows(rows), Some(columns)) if tensor.info.name.starts_with("per_layer_") => {
            columns.saturating_mul(rows.into())
        }
        _ => 0,
    }
}

/// Elements of what a table's rows were added to that nobody uses in a feed-forward network: it is freed
/// before the layers, beside a row of the hidden state, and as many of the network's three rows as fit there
/// are put there.
fn hole(shape: &ModelShape, tensor: &ModelTensor, tables: u64) -> i64 {
    let rows = tensor.info.shape.get(1).copied().unwrap_or(0);
    match tables.saturating_add(shape.embedding).checked_div(rows) {
        Some(fit) if tables > 0 && tensor.role == TensorRole::DenseFfn(FfnPart::Up) => {
            tables.cast_signed().saturating_sub(rows.saturating_mul(fit.min(3)).cast_signed())
        }
        _ => 0,
    }
}

/// Elements that one token needs in attention: queries before and after rotation, keys and values.
fn attention_row(layer: &LayerShape) -> u64 {
    let queries = layer.heads.saturating_mul(layer.key_len);
    let head = layer.key_len.saturating_add(layer.value_len);
    queries.saturating_mul(2).saturating_add(layer.kv_heads.saturating_mul(head))
}

/// Experts that a token uses in the layer of a tensor.
fn used_experts(shape: &ModelShape, tensor: &ModelTensor) -> u64 {
    tensor.layer.and_then(|layer| shape.expert_layer(layer)).map_or(0, |layer| u64::from(layer.used))
}

/// Elements that one token needs in a feed-forward network: gate, up and their product, and of experts the
/// results.
fn ffn_row(shape: &ModelShape, tensor: &ModelTensor) -> u64 {
    let rows = tensor.info.shape.get(1).copied().unwrap_or(0);
    match tensor.role {
        TensorRole::DenseFfn(FfnPart::Up) => rows.saturating_mul(3),
        TensorRole::RoutedExpert(part @ (ExpertPart::Up | ExpertPart::GateUp)) => {
            let inner = if part == ExpertPart::GateUp { rows / 2 } else { rows };
            // The results take the place of gate and up where they fit into it, and come on top otherwise.
            let results = if inner.saturating_mul(2) >= shape.embedding { 0 } else { shape.embedding };
            inner.saturating_mul(3).saturating_add(results).saturating_mul(used_experts(shape, tensor))
        }
        _ => 0,
    }
}

//! Which embeddings are tables that only `GET_ROWS` reads, and how many rows of them a token reads.
//!
//! An embedding of tokens is the projection to the vocabulary too where a file has no `output.weight`: every
//! token then multiplies with all of it. Tables of n-grams (`qwen4exp`, `deepseek41`) have a row for each
//! head of each module that hashes a token with those before it, one `head_offsets` for each.

use super::layers::ArchKeys;
use super::{ModelError, ModelTensor, Streaming};

/// Corrects what the names alone say of tables.
pub(super) fn settle(tensors: &mut [ModelTensor], keys: &ArchKeys<'_>) -> Result<(), ModelError> {
    let has_output = tensors.iter().any(|tensor| tensor.info.name == "output.weight");
    let heads = keys.metadata.array(&keys.key("ple.head_offsets"))?.map_or(1, |offsets| offsets.len());
    let rows = u32::try_from(heads.max(1)).unwrap_or(u32::MAX);
    for tensor in tensors.iter_mut().filter(|tensor| matches!(tensor.streaming, Streaming::Rows(_))) {
        tensor.streaming = match tensor.info.name.as_str() {
            "per_layer_token_embd.weight" => Streaming::Rows(rows),
            _ if has_output => Streaming::Rows(1),
            _ => Streaming::No,
        };
    }
    Ok(())
}

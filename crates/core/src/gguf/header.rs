//! What a GGUF header says: metadata and where each tensor lies. Also the rules that both the reader and the
//! writer hold tensors and alignment to, so that what one writes the other accepts.

use super::{GgmlType, GgufError, Metadata};

/// The alignment of tensor data where `general.alignment` is absent (`GGUF_DEFAULT_ALIGNMENT`).
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The largest alignment accepted. Far above any in use (32 to 4096); it keeps padding arithmetic from
/// overflowing.
pub const MAX_ALIGNMENT: u64 = 1 << 30;

/// The longest tensor name in bytes: ggml keeps names in 64 bytes with a terminator (`GGML_MAX_NAME`).
pub const MAX_TENSOR_NAME_BYTES: u64 = 63;

/// The key that overrides [`DEFAULT_ALIGNMENT`].
pub const ALIGNMENT_KEY: &str = "general.alignment";

/// Most dimensions of a tensor (`GGML_MAX_DIMS`).
const MAX_DIMS: usize = 4;

/// One tensor of a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the model, for instance `blk.0.attn_q.weight`.
    pub name: String,
    /// Elements per dimension in ggml's order, innermost first; 1 to 4 dimensions, none of them zero.
    pub shape: Vec<u64>,
    /// Encoding of the elements.
    pub ty: GgmlType,
    /// Which shard's file holds it, counted from 0.
    pub shard: usize,
    /// First byte, counted from the start of the shard's file.
    pub offset: u64,
    /// Size in the file, without padding.
    pub bytes: u64,
}

/// The header of one GGUF file.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Format version, 2 or 3.
    pub version: u32,
    /// Alignment of tensors in the data section, a power of two.
    pub alignment: u64,
    /// Key-value pairs.
    pub metadata: Metadata,
    /// Tensors in the order of the header.
    pub tensors: Vec<TensorInfo>,
    /// Where the data section begins, counted from the start of the file.
    pub data_start: u64,
}

/// The alignment that the metadata ask for, or the default.
pub(super) fn alignment_of(metadata: &Metadata) -> Result<u64, GgufError> {
    let value = metadata.u64(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if !value.is_power_of_two() || value > MAX_ALIGNMENT {
        return Err(GgufError::BadAlignment { value, limit: MAX_ALIGNMENT });
    }
    Ok(value)
}

/// Checks a tensor's name.
pub(super) fn check_tensor_name(name: &str) -> Result<(), GgufError> {
    let bytes = name.len() as u64;
    if bytes == 0 {
        return Err(GgufError::EmptyTensorName);
    }
    if bytes > MAX_TENSOR_NAME_BYTES {
        let what = format!("the length of the tensor name \"{name}\"");
        return Err(GgufError::OverLimit { what, value: bytes, limit: MAX_TENSOR_NAME_BYTES });
    }
    Ok(())
}

/// Bytes that a tensor occupies, after checking its shape against ggml's rules.
pub(super) fn tensor_bytes(name: &str, shape: &[u64], ty: GgmlType) -> Result<u64, GgufError> {
    let (Some(&row), 1..=MAX_DIMS) = (shape.first(), shape.len()) else {
        return Err(GgufError::BadRank { name: name.to_owned(), dims: shape.len() as u64 });
    };
    if shape.contains(&0) {
        return Err(GgufError::ZeroDimension { name: name.to_owned(), shape: shape.to_vec() });
    }
    if !row.is_multiple_of(ty.block_elements()) {
        let (ty, block) = (ty.name(), ty.block_elements());
        return Err(GgufError::PartialBlock { name: name.to_owned(), row, ty, block });
    }
    // ggml counts elements and bytes in i64: what does not fit there is no tensor.
    let fits = |n: &u64| i64::try_from(*n).is_ok();
    let elements = shape.iter().try_fold(1_u64, |product, &n| product.checked_mul(n)).filter(fits);
    elements
        .and_then(|n| ty.row_bytes(n))
        .filter(fits)
        .ok_or_else(|| GgufError::TooLarge { name: name.to_owned(), shape: shape.to_vec() })
}

/// `n` rounded up to a multiple of `alignment`, a power of two; `None` on overflow.
pub(super) fn align_up(n: u64, alignment: u64) -> Option<u64> {
    n.checked_next_multiple_of(alignment)
}

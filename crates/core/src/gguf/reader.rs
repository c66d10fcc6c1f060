//! Reads a GGUF header, version 2 or 3, little endian, from files that nobody vouches for.
//!
//! A header that is returned holds these invariants, so that no later code needs to check them: keys and
//! tensor names are unique and not empty, shapes are valid for their types, and tensors lie aligned, inside
//! the file, without overlap. Order of fields: llama.cpp's `gguf.h`.

use std::collections::HashSet;
use std::io::Read;

use super::cursor::{Cursor, What};
use super::header::{align_up, alignment_of, check_tensor_name, tensor_bytes};
use super::value::id;
use super::{Array, GgmlType, GgufError, Header, MAX_ARRAY_DEPTH, Metadata, TensorInfo, Value};

/// Most keys and most tensors of one file: far above real ones (hundreds of keys; 70,000 tensors before
/// experts were stacked), so that a count alone cannot fill the memory.
const MAX_ENTRIES: u64 = 1 << 20;

/// Smallest key in a file: its length, one letter, its type, one byte of value.
const MIN_KEY_BYTES: u64 = 8 + 1 + 4 + 1;

/// Smallest tensor in a file: its length, one letter, no dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 4 + 8;

/// Most strings or arrays in an array: what is small in the file is larger in memory. Real vocabularies have
/// 600,000 merges at most.
const MAX_ITEMS: u64 = 1 << 22;

/// Smallest array inside an array: its type and its length.
const MIN_ARRAY_BYTES: u64 = 4 + 8;

/// Reads the header of a file of `file_bytes` bytes from its start.
///
/// `reader` needs no buffering of its own, is read in steps of 64 KiB and is left somewhere behind the
/// header. Memory and time are bounded by the header's true size, which may be [`super::MAX_HEADER_BYTES`] at
/// most.
pub fn read_header(reader: impl Read, file_bytes: u64) -> Result<Header, GgufError> {
    let mut cursor = Cursor::new(reader, file_bytes);
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.u64(What::Preamble)?;
    let key_count = cursor.u64(What::Preamble)?;
    for (count, what) in [(tensor_count, "the number of tensors"), (key_count, "the number of keys")] {
        if count > MAX_ENTRIES {
            return Err(GgufError::OverLimit { what: what.to_owned(), value: count, limit: MAX_ENTRIES });
        }
    }
    cursor.expect(key_count, MIN_KEY_BYTES, What::Keys)?;
    let mut metadata = Metadata::new();
    for index in 0..key_count {
        read_key(&mut cursor, index, &mut metadata)?;
    }
    let alignment = alignment_of(&metadata)?;

    cursor.expect(tensor_count, MIN_TENSOR_BYTES, What::Tensors)?;
    let mut tensors = Vec::new();
    for index in 0..tensor_count {
        tensors.push(read_tensor(&mut cursor, index, alignment)?);
    }
    let data_start = data_start(&cursor, alignment)?;
    place(&mut tensors, data_start, file_bytes)?;
    Ok(Header { version, alignment, metadata, tensors, data_start })
}

fn read_version<R: Read>(cursor: &mut Cursor<R>) -> Result<u32, GgufError> {
    let found = cursor.bytes::<4>(What::Preamble)?;
    if found != *b"GGUF" {
        return Err(GgufError::NotGguf { found });
    }
    match cursor.u32(What::Preamble)? {
        version @ 2..=3 => Ok(version),
        version if (1..=3).contains(&version.swap_bytes()) => Err(GgufError::BigEndian { version }),
        version => Err(GgufError::UnsupportedVersion { version }),
    }
}

fn read_key<R: Read>(cursor: &mut Cursor<R>, index: u64, metadata: &mut Metadata) -> Result<(), GgufError> {
    let key = cursor.utf8(What::Key(index))?;
    if key.is_empty() {
        return Err(GgufError::EmptyKey { index });
    }
    if metadata.get(&key).is_some() {
        return Err(GgufError::DuplicateKey { key });
    }
    let value = read_value(cursor, &key)?;
    metadata.insert(key, value);
    Ok(())
}

fn read_value<R: Read>(cursor: &mut Cursor<R>, key: &str) -> Result<Value, GgufError> {
    let what = What::ValueOf(key);
    Ok(match cursor.u32(what)? {
        id::U8 => Value::U8(u8::from_le_bytes(cursor.bytes(what)?)),
        id::I8 => Value::I8(i8::from_le_bytes(cursor.bytes(what)?)),
        id::U16 => Value::U16(u16::from_le_bytes(cursor.bytes(what)?)),
        id::I16 => Value::I16(i16::from_le_bytes(cursor.bytes(what)?)),
        id::U32 => Value::U32(cursor.u32(what)?),
        id::I32 => Value::I32(i32::from_le_bytes(cursor.bytes(what)?)),
        id::U64 => Value::U64(cursor.u64(what)?),
        id::I64 => Value::I64(i64::from_le_bytes(cursor.bytes(what)?)),
        id::F32 => Value::F32(f32::from_le_bytes(cursor.bytes(what)?)),
        id::F64 => Value::F64(f64::from_le_bytes(cursor.bytes(what)?)),
        id::BOOL => Value::Bool(bool_from(cursor.bytes(what)?)),
        id::STRING => Value::String(cursor.text(what)?),
        id::ARRAY => Value::Array(read_array(cursor, key, 1)?),
        id => return Err(GgufError::UnknownValueType { key: key.to_owned(), id }),
    })
}

fn read_array<R: Read>(cursor: &mut Cursor<R>, key: &str, depth: usize) -> Result<Array, GgufError> {
    if depth > MAX_ARRAY_DEPTH {
        return Err(GgufError::NestedTooDeep { key: key.to_owned(), limit: MAX_ARRAY_DEPTH });
    }
    let what = What::ValueOf(key);
    let element = cursor.u32(what)?;
    let count = cursor.u64(what)?;
    Ok(match element {
        id::U8 => Array::U8(cursor.numbers(count, what, u8::from_le_bytes)?),
        id::I8 => Array::I8(cursor.numbers(count, what, i8::from_le_bytes)?),
        id::U16 => Array::U16(cursor.numbers(count, what, u16::from_le_bytes)?),
        id::I16 => Array::I16(cursor.numbers(count, what, i16::from_le_bytes)?),
        id::U32 => Array::U32(cursor.numbers(count, what, u32::from_le_bytes)?),
        id::I32 => Array::I32(cursor.numbers(count, what, i32::from_le_bytes)?),
        id::U64 => Array::U64(cursor.numbers(count, what, u64::from_le_bytes)?),
        id::I64 => Array::I64(cursor.numbers(count, what, i64::from_le_bytes)?),
        id::F32 => Array::F32(cursor.numbers(count, what, f32::from_le_bytes)?),
        id::F64 => Array::F64(cursor.numbers(count, what, f64::from_le_bytes)?),
        id::BOOL => Array::Bool(cursor.numbers(count, what, bool_from)?),
        id::STRING => {
            expect_items(cursor, count, size_of::<u64>() as u64, what)?;
            Array::String((0..count).map(|_| cursor.text(what)).collect::<Result<_, _>>()?)
        }
        id::ARRAY => {
            expect_items(cursor, count, MIN_ARRAY_BYTES, what)?;
            Array::Nested((0..count).map(|_| read_array(cursor, key, depth + 1)).collect::<Result<_, _>>()?)
        }
        id => return Err(GgufError::UnknownValueType { key: key.to_owned(), id }),
    })
}

fn expect_items<R: Read>(
    cursor: &Cursor<R>,
    count: u64,
    bytes: u64,
    what: What<'_>,
) -> Result<(), GgufError> {
    if count > MAX_ITEMS && count.saturating_mul(bytes) <= cursor.left() {
        let what = format!("the number of elements in {what}");
        return Err(GgufError::OverLimit { what, value: count, limit: MAX_ITEMS });
    }
    cursor.expect(count, bytes, what)
}

/// Any byte but zero is true, as llama.cpp reads it.
fn bool_from(byte: [u8; 1]) -> bool {
    byte != [0]
}

/// Reads one tensor's description; `offset` is still counted from the start of the data.
fn read_tensor<R: Read>(cursor: &mut Cursor<R>, index: u64, alignment: u64) -> Result<TensorInfo, GgufError> {
    let name = cursor.utf8(What::TensorName(index))?;
    check_tensor_name(&name)?;
    let what = What::TensorFields(&name);
    let dims = cursor.u32(what)?;
    let shape = match dims {
        // ggml takes missing dimensions for ones: no dimension is a scalar.
        0 => vec![1],
        1..=4 => cursor.numbers(dims.into(), what, u64::from_le_bytes)?,
        dims => return Err(GgufError::BadRank { name, dims: dims.into() }),
    };
    let type_id = cursor.u32(what)?;
    let offset = cursor.u64(what)?;
    let Some(ty) = GgmlType::from_id(type_id) else {
        return Err(GgufError::UnknownTensorType { name, id: type_id });
    };
    let bytes = tensor_bytes(&name, &shape, ty)?;
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::Misaligned { name, offset, alignment });
    }
    Ok(TensorInfo { name, shape, ty, shard: 0, offset, bytes })
}

fn data_start<R: Read>(cursor: &Cursor<R>, alignment: u64) -> Result<u64, GgufError> {
    let at = cursor.at();
    align_up(at, alignment).ok_or_else(|| GgufError::Truncated {
        what: What::Padding.to_string(),
        at,
        need: alignment,
        left: u64::MAX - at,
    })
}

/// Makes offsets absolute and checks them, and names, against each other and the file's end.
fn place(tensors: &mut [TensorInfo], data_start: u64, file_bytes: u64) -> Result<(), GgufError> {
    // No file is larger than an offset of the operating system; so sums of offsets below cannot overflow.
    let file_bytes = file_bytes.min(i64::MAX as u64);
    for tensor in &mut *tensors {
        let offset = data_start.checked_add(tensor.offset);
        let end = offset.and_then(|offset| offset.checked_add(tensor.bytes));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= file_bytes => tensor.offset = offset,
            _ => {
                let (name, end) = (tensor.name.clone(), end.unwrap_or(u64::MAX));
                return Err(GgufError::BeyondFile { name, end, file_bytes });
            }
        }
    }
    let mut names = HashSet::with_capacity(tensors.len());
    let mut by_offset: Vec<&TensorInfo> = tensors.iter().collect();
    by_offset.sort_unstable_by_key(|tensor| tensor.offset);
    for (index, tensor) in by_offset.iter().enumerate() {
        if !names.insert(tensor.name.as_str()) {
            return Err(GgufError::DuplicateTensor { name: tensor.name.clone() });
        }
        // Sizes are never zero, so tensors that do not meet their successor meet no other.
        if let Some(next) = by_offset.get(index + 1).filter(|next| tensor.offset + tensor.bytes > next.offset)
        {
            return Err(GgufError::Overlap { first: tensor.name.clone(), second: next.name.clone() });
        }
    }
    Ok(())
}

//! Writes GGUF v3 headers: plan the tensors, learn where each goes, write the header, then write the data
//! yourself.
//!
//! The data of all tensors follow the header in the order in which they were planned, each padded with zeros
//! to the alignment, the last one too ([`Layout::padding_after`]). A shard is written by a builder of its own
//! ([`HeaderBuilder::set_split`]).

use std::collections::HashSet;
use std::io::Write;

use super::header::{ALIGNMENT_KEY, align_up, alignment_of, check_tensor_name, tensor_bytes};
use super::shards::{SPLIT_COUNT_KEY, SPLIT_NO_KEY, SPLIT_TENSORS_KEY};
use super::{Array, GgmlType, GgufError, MAX_ARRAY_DEPTH, Metadata, TensorInfo, Value};

/// A header under construction.
#[derive(Debug, Clone, Default)]
pub struct HeaderBuilder {
    metadata: Metadata,
    planned: Vec<Planned>,
}

#[derive(Debug, Clone)]
struct Planned {
    name: String,
    shape: Vec<u64>,
    ty: GgmlType,
}

/// Where everything goes in the file that a [`HeaderBuilder`] describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Alignment of the tensors.
    pub alignment: u64,
    /// Where the data section begins: the size of what [`HeaderBuilder::write_header`] writes.
    pub data_start: u64,
    /// The planned tensors in order, with offsets and sizes (`shard` is 0).
    pub tensors: Vec<TensorInfo>,
    /// Size of the complete file, the padding of the last tensor included.
    pub file_bytes: u64,
}

impl Layout {
    /// How many zero bytes follow the data of tensor `index`; 0 when there is no such tensor.
    pub fn padding_after(&self, index: usize) -> u64 {
        let Some(tensor) = self.tensors.get(index) else { return 0 };
        let next = self.tensors.get(index + 1).map_or(self.file_bytes, |next| next.offset);
        next - tensor.offset - tensor.bytes
    }
}

impl HeaderBuilder {
    /// No metadata, no tensors, the default alignment.
    pub fn new() -> Self {
        Self::default()
    }

    /// The metadata, to add to.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Sets a key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.metadata.insert(key, value);
        self
    }

    /// Aligns tensors to `alignment` bytes, a power of two (checked by [`HeaderBuilder::layout`]).
    pub fn set_alignment(&mut self, alignment: u32) -> &mut Self {
        self.set(ALIGNMENT_KEY, alignment)
    }

    /// Marks the file as shard `index` (counted from 0) of `count`, which together hold `total_tensors`
    /// tensors.
    pub fn set_split(&mut self, index: u16, count: u16, total_tensors: i32) -> &mut Self {
        self.set(SPLIT_NO_KEY, index).set(SPLIT_COUNT_KEY, count).set(SPLIT_TENSORS_KEY, total_tensors)
    }

    /// Plans a tensor after those already planned. `shape` is in ggml's order, innermost first.
    pub fn tensor(&mut self, name: impl Into<String>, shape: &[u64], ty: GgmlType) -> &mut Self {
        self.planned.push(Planned { name: name.into(), shape: shape.to_vec(), ty });
        self
    }

    /// Computes where each tensor goes, after checking all that the reader would check.
    pub fn layout(&self) -> Result<Layout, GgufError> {
        self.encode().map(|(_, layout)| layout)
    }

    /// Writes the header and the padding up to the first tensor, and returns where each tensor goes.
    pub fn write_header(&self, mut to: impl Write) -> Result<Layout, GgufError> {
        let (bytes, layout) = self.encode()?;
        to.write_all(&bytes).map_err(GgufError::Write)?;
        Ok(layout)
    }

    /// The header's bytes (padding included) and the layout. Headers are some megabytes at most: one buffer
    /// is simplest.
    fn encode(&self) -> Result<(Vec<u8>, Layout), GgufError> {
        let alignment = alignment_of(&self.metadata)?;
        let mut seen = HashSet::new();
        let mut out = Vec::from(*b"GGUF");
        out.extend(3_u32.to_le_bytes());
        out.extend((self.planned.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (index, (key, value)) in self.metadata.iter().enumerate() {
            if key.is_empty() {
                return Err(GgufError::EmptyKey { index: index as u64 });
            }
            put_string(&mut out, key);
            put_value(&mut out, key, value)?;
        }
        let mut sizes = Vec::with_capacity(self.planned.len());
        let mut data_bytes = 0_u64;
        for planned in &self.planned {
            let Planned { name, shape, ty } = planned;
            check_tensor_name(name)?;
            if !seen.insert(name.as_str()) {
                return Err(GgufError::DuplicateTensor { name: name.clone() });
            }
            let bytes = tensor_bytes(name, shape, *ty)?;
            put_tensor(&mut out, planned, data_bytes);
            sizes.push((data_bytes, bytes));
            data_bytes = data_bytes
                .checked_add(bytes)
                .and_then(|end| align_up(end, alignment))
                .ok_or_else(|| GgufError::TooLarge { name: name.clone(), shape: shape.clone() })?;
        }
        let padding = (alignment - out.len() as u64 % alignment) % alignment;
        out.resize(out.len() + padding as usize, 0);
        let layout = self.place(alignment, out.len() as u64, &sizes, data_bytes)?;
        Ok((out, layout))
    }

    fn place(
        &self,
        alignment: u64,
        data_start: u64,
        sizes: &[(u64, u64)],
        data_bytes: u64,
    ) -> Result<Layout, GgufError> {
        let file_bytes = data_start.checked_add(data_bytes).filter(|&n| i64::try_from(n).is_ok());
        let Some(file_bytes) = file_bytes else {
            let last = self.planned.last().map(|p| (p.name.clone(), p.shape.clone()));
            let (name, shape) = last.unwrap_or_default();
            return Err(GgufError::TooLarge { name, shape });
        };
        let info = |(planned, &(offset, bytes)): (&Planned, &(u64, u64))| TensorInfo {
            name: planned.name.clone(),
            shape: planned.shape.clone(),
            ty: planned.ty,
            shard: 0,
            offset: data_start + offset,
            bytes,
        };
        let tensors = self.planned.iter().zip(sizes).map(info).collect();
        Ok(Layout { alignment, data_start, tensors, file_bytes })
    }
}

fn put_tensor(out: &mut Vec<u8>, tensor: &Planned, offset: u64) {
    put_string(out, &tensor.name);
    out.extend((tensor.shape.len() as u32).to_le_bytes());
    out.extend(tensor.shape.iter().flat_map(|n| n.to_le_bytes()));
    out.extend(tensor.ty.id().to_le_bytes());
    out.extend(offset.to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, key: &str, value: &Value) -> Result<(), GgufError> {
    out.extend(value.type_id().to_le_bytes());
    match value {
        Value::U8(v) => out.extend(v.to_le_bytes()),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_string(out, v),
        Value::Array(v) => return put_array(out, key, v, 1),
    }
    Ok(())
}

fn put_array(out: &mut Vec<u8>, key: &str, array: &Array, depth: usize) -> Result<(), GgufError> {
    if depth > MAX_ARRAY_DEPTH {
        return Err(GgufError::NestedTooDeep { key: key.to_owned(), limit: MAX_ARRAY_DEPTH });
    }
    out.extend(array.element_type_id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U16(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I16(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U32(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I32(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U64(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I64(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::F32(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::F64(v) => out.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::Bool(v) => out.extend(v.iter().map(|&v| u8::from(v))),
        Array::String(v) => v.iter().for_each(|text| put_string(out, text)),
        Array::Nested(v) => {
            for inner in v {
                put_array(out, key, inner, depth + 1)?;
            }
        }
    }
    Ok(())
}

//! Metadata of a GGUF as bytes: what no reader would accept can be written, too.

use hypura_core::gguf::{Array, Value};

/// Ids of value types in the file (`enum gguf_type`).
pub mod id {
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const TEXT: u32 = 8;
    pub const LIST: u32 = 9;
    pub const U64: u32 = 10;
}

/// A value of the metadata.
#[derive(Clone, Debug)]
pub enum Raw {
    /// A number or a truth of so many bytes.
    Number(u32, Vec<u8>),
    Text(Vec<u8>),
    /// Elements of one type, without their ids.
    List(u32, Vec<Raw>),
}

impl Raw {
    pub fn of(value: &Value) -> Self {
        let number = |id: u32, bytes: &[u8]| Self::Number(id, bytes.to_vec());
        match value {
            Value::U8(v) => number(0, &v.to_le_bytes()),
            Value::I8(v) => number(1, &v.to_le_bytes()),
            Value::U16(v) => number(2, &v.to_le_bytes()),
            Value::I16(v) => number(3, &v.to_le_bytes()),
            Value::U32(v) => number(id::U32, &v.to_le_bytes()),
            Value::I32(v) => number(id::I32, &v.to_le_bytes()),
            Value::F32(v) => number(id::F32, &v.to_le_bytes()),
            Value::Bool(v) => number(id::BOOL, &[u8::from(*v)]),
            Value::String(v) => Self::Text(v.clone().into_bytes()),
            Value::U64(v) => number(id::U64, &v.to_le_bytes()),
            Value::I64(v) => number(11, &v.to_le_bytes()),
            Value::F64(v) => number(12, &v.to_le_bytes()),
            Value::Array(array) => Self::of_array(array),
        }
    }

    fn of_array(array: &Array) -> Self {
        let list = |id: u32, elements: Vec<Self>| Self::List(id, elements);
        match array {
            Array::U32(v) => list(id::U32, v.iter().map(|v| Self::u32(*v)).collect()),
            Array::I32(v) => list(id::I32, v.iter().map(|v| Self::i32(*v)).collect()),
            Array::F32(v) => list(id::F32, v.iter().map(|v| Self::f32(*v)).collect()),
            Array::String(v) => list(id::TEXT, v.iter().map(|v| Self::text(v)).collect()),
            other => panic!("no model that is synthesised has an {}", other.type_name()),
        }
    }

    pub fn u32(value: u32) -> Self {
        Self::Number(id::U32, value.to_le_bytes().to_vec())
    }

    pub fn i32(value: i32) -> Self {
        Self::Number(id::I32, value.to_le_bytes().to_vec())
    }

    pub fn f32(value: f32) -> Self {
        Self::Number(id::F32, value.to_le_bytes().to_vec())
    }

    pub fn truth(value: bool) -> Self {
        Self::Number(id::BOOL, vec![u8::from(value)])
    }

    pub fn text(value: &str) -> Self {
        Self::Text(value.as_bytes().to_vec())
    }

    pub fn texts(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::List(id::TEXT, values.into_iter().map(Self::Text).collect())
    }

    /// The number, where it is a whole one.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(id::F32 | 12, _) | Self::Text(_) | Self::List(..) => None,
            Self::Number(_, bytes) => {
                let mut wide = [0; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                Some(u64::from_le_bytes(wide))
            }
        }
    }

    fn type_id(&self) -> u32 {
        match self {
            Self::Number(id, _) => *id,
            Self::Text(_) => id::TEXT,
            Self::List(..) => id::LIST,
        }
    }

    /// Type and bytes, as they follow a key.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.type_id().to_le_bytes());
        self.put_bytes(out);
    }

    fn put_bytes(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(_, bytes) => out.extend(bytes),
            Self::Text(text) => put_text(out, text),
            Self::List(id, elements) => {
                out.extend(id.to_le_bytes());
                out.extend((elements.len() as u64).to_le_bytes());
                elements.iter().for_each(|element| element.put_bytes(out));
            }
        }
    }
}

pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

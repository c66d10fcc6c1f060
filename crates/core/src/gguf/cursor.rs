//! Reads little-endian fields under two bounds: the size of the file and [`MAX_HEADER_BYTES`].
//!
//! Invariant: no length that the file claims is allocated before it was found to fit what is left of the
//! file, and large ones are allocated piece by piece as their bytes arrive. So memory is bounded by what was
//! truly read, whatever a damaged file claims and even if the caller's `file_bytes` is wrong.

use std::fmt;
use std::io::{BufReader, Read};

use super::GgufError;

/// The largest header read. Real ones are below 30 MB (vocabularies of 260,000 tokens with merges).
pub const MAX_HEADER_BYTES: u64 = 128 << 20;

/// Read-ahead, and the step in which long strings and arrays grow.
const CHUNK_BYTES: usize = 64 << 10;

/// The thing being read, for messages. Copied for every field, so it must cost nothing until it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum What<'a> {
    Preamble,
    Keys,
    Tensors,
    Key(u64),
    ValueOf(&'a str),
    TensorName(u64),
    TensorFields(&'a str),
    Padding,
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preamble => f.write_str("the preamble"),
            Self::Keys => f.write_str("the list of keys"),
            Self::Tensors => f.write_str("the list of tensors"),
            Self::Key(index) => write!(f, "the name of key {index}"),
            Self::ValueOf(key) => write!(f, "the value of key \"{key}\""),
            Self::TensorName(index) => write!(f, "the name of tensor {index}"),
            Self::TensorFields(name) => write!(f, "the description of tensor \"{name}\""),
            Self::Padding => f.write_str("the padding before the tensor data"),
        }
    }
}

/// A position in a header.
pub(super) struct Cursor<R> {
    reader: BufReader<R>,
    at: u64,
    file_bytes: u64,
}

impl<R: Read> Cursor<R> {
    pub fn new(reader: R, file_bytes: u64) -> Self {
        Self { reader: BufReader::with_capacity(CHUNK_BYTES, reader), at: 0, file_bytes }
    }

    /// Bytes read so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes left of the file.
    pub fn left(&self) -> u64 {
        self.file_bytes.saturating_sub(self.at)
    }

    /// Checks that `count` items of at least `item_bytes` each can still follow.
    pub fn expect(&self, count: u64, item_bytes: u64, what: What<'_>) -> Result<(), GgufError> {
        let need = count.saturating_mul(item_bytes);
        let left = self.left();
        if need > left {
            return Err(GgufError::Truncated { what: what.to_string(), at: self.at, need, left });
        }
        let end = self.at.saturating_add(need);
        if end > MAX_HEADER_BYTES {
            let what = format!("the end of {what}");
            return Err(GgufError::OverLimit { what, value: end, limit: MAX_HEADER_BYTES });
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8], what: What<'_>) -> Result<(), GgufError> {
        self.expect(buffer.len() as u64, 1, what)?;
        self.reader
            .read_exact(buffer)
            .map_err(|source| GgufError::Read { what: what.to_string(), source })?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    pub fn bytes<const N: usize>(&mut self, what: What<'_>) -> Result<[u8; N], GgufError> {
        let mut buffer = [0; N];
        self.fill(&mut buffer, what)?;
        Ok(buffer)
    }

    pub fn u32(&mut self, what: What<'_>) -> Result<u32, GgufError> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: What<'_>) -> Result<u64, GgufError> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A string that must be UTF-8: keys and tensor names.
    pub fn utf8(&mut self, what: What<'_>) -> Result<String, GgufError> {
        let bytes = self.string_bytes(what)?;
        String::from_utf8(bytes).map_err(|_| GgufError::NotUtf8 { what: what.to_string() })
    }

    /// A string value. Vocabularies of byte-level tokenisers hold tokens that are no UTF-8 in some files;
    /// what is not becomes U+FFFD. (Text is made by llama.cpp's tokeniser from the file itself, never from
    /// these strings.)
    pub fn text(&mut self, what: What<'_>) -> Result<String, GgufError> {
        let bytes = self.string_bytes(what)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    fn string_bytes(&mut self, what: What<'_>) -> Result<Vec<u8>, GgufError> {
        let length = self.u64(what)?;
        self.expect(length, 1, what)?;
        self.long_bytes(length, what)
    }

    fn long_bytes(&mut self, length: u64, what: What<'_>) -> Result<Vec<u8>, GgufError> {
        let mut bytes = Vec::new();
        let mut left = length;
        while left > 0 {
            let step = left.min(CHUNK_BYTES as u64);
            let start = bytes.len();
            bytes.resize(start + step as usize, 0);
            self.fill(bytes.get_mut(start..).unwrap_or_default(), what)?;
            left -= step;
        }
        Ok(bytes)
    }

    /// `count` numbers of `N` bytes each.
    pub fn numbers<const N: usize, T>(
        &mut self,
        count: u64,
        what: What<'_>,
        from: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufError> {
        self.expect(count, N as u64, what)?;
        let mut values = Vec::new();
        let mut left = count;
        while left > 0 {
            let step = left.min((CHUNK_BYTES / N) as u64);
            let chunk = self.long_bytes(step * N as u64, what)?;
            values.extend(chunk.as_chunks::<N>().0.iter().map(|&bytes| from(bytes)));
            left -= step;
        }
        Ok(values)
    }
}

//! Headers that lie: every count, length, type and offset, one at a time. The reader must return the right
//! error, and must not allocate what the file merely claims to hold: a claim of 2^40 elements would abort the
//! test if it did.
#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::io::{self, Read};

use hypura_core::gguf::{
    Array, GgmlType, GgufError, Header, HeaderBuilder, MAX_ARRAY_DEPTH, MAX_HEADER_BYTES, Value, read_header,
};

/// Hand-written headers, field by field.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn start(tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(keys)
    }

    fn u32(mut self, v: u32) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    fn u64(mut self, v: u64) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    fn str(self, text: &[u8]) -> Self {
        let mut raw = self.u64(text.len() as u64);
        raw.0.extend(text);
        raw
    }

    /// A tensor with the given shape, type id and offset.
    fn tensor(self, name: &str, shape: &[u64], ty: u32, offset: u64) -> Self {
        let raw = self.str(name.as_bytes()).u32(shape.len() as u32);
        shape.iter().fold(raw, |raw, &n| raw.u64(n)).u32(ty).u64(offset)
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn read(&self) -> Result<Header, GgufError> {
        read_header(self.0.as_slice(), self.0.len() as u64)
    }

    fn error(&self) -> GgufError {
        self.read().expect_err("a lying header was accepted")
    }
}

const F32: u32 = 0;
const U8: u32 = 0;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const HUGE: u64 = 1 << 40;

macro_rules! assert_error {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "unexpected error: {error:?}");
    };
}

#[test]
fn other_files_are_named_for_what_they_are() {
    assert_error!(Raw(b"PK\x03\x04 and more".to_vec()).error(), GgufError::NotGguf { .. });
    assert_error!(Raw(vec![]).error(), GgufError::Truncated { .. });
    assert_error!(Raw(b"GG".to_vec()).error(), GgufError::Truncated { .. });
    let version = |bytes: [u8; 4]| Raw([*b"GGUF", bytes].concat()).zeros(16).error();
    assert_error!(version([0, 0, 0, 3]), GgufError::BigEndian { .. });
    assert_error!(version([1, 0, 0, 0]), GgufError::UnsupportedVersion { version: 1 });
    assert_error!(version([4, 0, 0, 0]), GgufError::UnsupportedVersion { version: 4 });
    assert_error!(version([0, 0, 0, 0]), GgufError::UnsupportedVersion { version: 0 });
}

#[test]
fn counts_beyond_the_file_are_refused() {
    // A hundred bytes that claim 2^40 tensors, or keys.
    assert_error!(Raw::start(HUGE, 0).zeros(76).error(), GgufError::OverLimit { value: HUGE, .. });
    assert_error!(Raw::start(0, HUGE).zeros(76).error(), GgufError::OverLimit { value: HUGE, .. });
    assert_error!(Raw::start(u64::MAX, u64::MAX).zeros(76).error(), GgufError::OverLimit { .. });
    assert_error!(Raw::start(1000, 0).zeros(76).error(), GgufError::Truncated { .. });
    assert_error!(Raw::start(0, 1000).zeros(76).error(), GgufError::Truncated { .. });
}

#[test]
fn lengths_beyond_the_file_are_refused() {
    for length in [65, HUGE, u64::MAX] {
        assert_error!(Raw::start(0, 1).u64(length).zeros(64).error(), GgufError::Truncated { .. });
        let value = Raw::start(0, 1).str(b"k").u32(STRING).u64(length).zeros(64);
        assert_error!(value.error(), GgufError::Truncated { .. });
        for element in [U8, 4, STRING, ARRAY] {
            let array = Raw::start(0, 1).str(b"k").u32(ARRAY).u32(element).u64(length).zeros(64);
            assert_error!(array.error(), GgufError::Truncated { .. });
        }
        let name = Raw::start(1, 0).u64(length).zeros(64);
        assert_error!(name.error(), GgufError::Truncated { .. });
    }
}

#[test]
fn claims_are_not_allocated_even_if_the_file_size_is_wrong() {
    // The caller says that the file is huge, so the lengths seem to fit; the bytes never come.
    for (element, width) in [(U8, 1), (4, 4), (10, 8), (STRING, 8), (ARRAY, 12)] {
        let count = ((MAX_HEADER_BYTES - 1000) / width).min(1 << 22);
        let array = Raw::start(0, 1).str(b"k").u32(ARRAY).u32(element).u64(count).zeros(7);
        assert_error!(read_header(array.0.as_slice(), 1 << 60).unwrap_err(), GgufError::Read { source, .. }
            if source.kind() == io::ErrorKind::UnexpectedEof);
        let more = Raw::start(0, 1).str(b"k").u32(ARRAY).u32(element).u64(HUGE).zeros(7);
        assert_error!(read_header(more.0.as_slice(), 1 << 60).unwrap_err(), GgufError::OverLimit { .. });
    }
}

#[test]
fn arrays_of_small_things_are_limited_in_number() {
    // An empty string takes 8 bytes of the file but 24 of memory: here the number is bounded, not only the
    // bytes.
    for element in [STRING, ARRAY] {
        let array = Raw::start(0, 1).str(b"k").u32(ARRAY).u32(element).u64((1 << 22) + 1);
        let endless = array.0.as_slice().chain(io::repeat(0));
        assert_error!(
            read_header(endless, 1 << 60).unwrap_err(),
            GgufError::OverLimit { limit: 0x40_0000, .. }
        );
    }
}

#[test]
fn arrays_nest_only_so_deep() {
    let nested = |depth| {
        let outer = (1..depth).fold(Array::U8(vec![1]), |inner, _| Array::Nested(vec![inner]));
        let mut builder = HeaderBuilder::new();
        builder.set("k", Value::Array(outer));
        builder.write_header(io::sink())
    };
    assert!(nested(MAX_ARRAY_DEPTH).is_ok());
    assert_error!(nested(MAX_ARRAY_DEPTH + 1).unwrap_err(), GgufError::NestedTooDeep { .. });
    // By hand, as the writer refuses: each level is an array of one array. Unbounded, this would exhaust the
    // stack.
    let mut raw = Raw::start(0, 1).str(b"k").u32(ARRAY);
    for _ in 0..1_000_000 {
        raw = raw.u32(ARRAY).u64(1);
    }
    assert_error!(raw.error(), GgufError::NestedTooDeep { .. });
}

#[test]
fn bad_keys_are_refused() {
    let key = |name: &[u8], ty: u32| Raw::start(0, 1).str(name).u32(ty).zeros(32);
    assert!(key(b"k", U8).read().is_ok());
    assert_error!(key(b"", U8).error(), GgufError::EmptyKey { index: 0 });
    assert_error!(key(b"\xff\xfe", U8).error(), GgufError::NotUtf8 { .. });
    assert_error!(key(b"k", 13).error(), GgufError::UnknownValueType { id: 13, .. });
    let element = Raw::start(0, 1).str(b"k").u32(ARRAY).u32(13).u64(0).zeros(32);
    assert_error!(element.error(), GgufError::UnknownValueType { id: 13, .. });
    let twice = Raw::start(0, 2).str(b"k").u32(U8).zeros(1).str(b"k").u32(U8).zeros(1);
    assert_error!(twice.error(), GgufError::DuplicateKey { .. });
}

#[test]
fn string_values_that_are_not_utf8_are_replaced_not_refused() {
    let header = Raw::start(0, 1).str(b"k").u32(STRING).str(b"a\xffb").read().unwrap();
    assert_eq!(header.metadata.str("k").unwrap(), Some("a\u{fffd}b"));
}

#[test]
fn alignment_must_be_a_power_of_two() {
    let with = |alignment: u32| Raw::start(0, 1).str(b"general.alignment").u32(4).u32(alignment).zeros(64);
    assert_eq!(with(64).read().unwrap().alignment, 64);
    for bad in [0, 3, 33, u32::MAX, 1 << 31] {
        assert_error!(with(bad).error(), GgufError::BadAlignment { value, .. } if *value == u64::from(bad));
    }
    let text = Raw::start(0, 1).str(b"general.alignment").u32(STRING).str(b"32");
    assert_error!(text.error(), GgufError::WrongType { .. });
}

#[test]
fn bad_shapes_are_refused() {
    let shape = |shape: &[u64], ty| Raw::start(1, 0).tensor("t", shape, ty, 0).zeros(4096);
    assert!(shape(&[4, 4], F32).read().is_ok());
    assert_eq!(shape(&[], F32).read().unwrap().tensors[0].shape, [1], "no dimension is a scalar");
    assert_error!(shape(&[1; 5], F32).error(), GgufError::BadRank { dims: 5, .. });
    assert_error!(shape(&[0], F32).error(), GgufError::ZeroDimension { .. });
    assert_error!(shape(&[4, 0, 4], F32).error(), GgufError::ZeroDimension { .. });
    assert_error!(shape(&[u64::MAX, u64::MAX], F32).error(), GgufError::TooLarge { .. });
    assert_error!(shape(&[1 << 32, 1 << 32], F32).error(), GgufError::TooLarge { .. });
    assert_error!(shape(&[1 << 62], F32).error(), GgufError::TooLarge { .. });
    assert_error!(shape(&[1 << 62], GgmlType::I8.id()).error(), GgufError::BeyondFile { .. });
    assert_error!(shape(&[100], GgmlType::Q4_K.id()).error(), GgufError::PartialBlock { .. });
    assert_error!(shape(&[256], 4).error(), GgufError::UnknownTensorType { id: 4, .. });
    let many = Raw::start(1, 0).str(b"t").u32(u32::MAX).zeros(4096);
    assert_error!(many.error(), GgufError::BadRank { .. });
}

#[test]
fn bad_places_are_refused() {
    let two = |first: u64, second: u64| {
        let raw = Raw::start(2, 0).tensor("a", &[16], F32, first).tensor("b", &[16], F32, second);
        raw.zeros(256)
    };
    assert!(two(0, 64).read().is_ok());
    assert!(two(64, 0).read().is_ok(), "order in the header is not order in the file");
    assert!(two(0, 128).read().is_ok(), "gaps are harmless");
    assert_error!(two(0, 0).error(), GgufError::Overlap { .. });
    assert_error!(two(0, 32).error(), GgufError::Overlap { .. });
    assert_error!(two(32, 0).error(), GgufError::Overlap { .. });
    assert_error!(two(0, 65).error(), GgufError::Misaligned { offset: 65, .. });
    assert_error!(two(0, HUGE).error(), GgufError::BeyondFile { .. });
    assert_error!(two(0, u64::MAX - 31).error(), GgufError::BeyondFile { .. });
}

#[test]
fn bad_tensor_names_are_refused() {
    let named = |name: &[u8]| Raw::start(1, 0).str(name).u32(1).u64(4).u32(F32).u64(0).zeros(64);
    assert!(named(&[b'x'; 63]).read().is_ok());
    assert_error!(named(b"").error(), GgufError::EmptyTensorName);
    assert_error!(named(&[b'x'; 64]).error(), GgufError::OverLimit { value: 64, .. });
    assert_error!(named(b"\xff").error(), GgufError::NotUtf8 { .. });
    let twice = Raw::start(2, 0).tensor("a", &[4], F32, 0).tensor("a", &[4], F32, 32).zeros(128);
    assert_error!(twice.error(), GgufError::DuplicateTensor { .. });
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let build = |name: &str, shape: &[u64], ty| HeaderBuilder::new().tensor(name, shape, ty).layout();
    assert!(build("t", &[4], GgmlType::F32).is_ok());
    assert_error!(build("", &[4], GgmlType::F32).unwrap_err(), GgufError::EmptyTensorName);
    assert_error!(build("t", &[], GgmlType::F32).unwrap_err(), GgufError::BadRank { .. });
    assert_error!(build("t", &[0], GgmlType::F32).unwrap_err(), GgufError::ZeroDimension { .. });
    assert_error!(build("t", &[33], GgmlType::Q8_0).unwrap_err(), GgufError::PartialBlock { .. });
    assert_error!(build("t", &[1 << 62], GgmlType::F32).unwrap_err(), GgufError::TooLarge { .. });
    let mut builder = HeaderBuilder::new();
    builder.tensor("t", &[4], GgmlType::F32).tensor("t", &[4], GgmlType::F32);
    assert_error!(builder.layout().unwrap_err(), GgufError::DuplicateTensor { .. });
    assert_error!(
        HeaderBuilder::new().set_alignment(48).layout().unwrap_err(),
        GgufError::BadAlignment { .. }
    );
    let mut builder = HeaderBuilder::new();
    builder.tensor("a", &[1 << 62], GgmlType::I8).tensor("b", &[1 << 62], GgmlType::I8);
    assert_error!(builder.layout().unwrap_err(), GgufError::TooLarge { .. });
}

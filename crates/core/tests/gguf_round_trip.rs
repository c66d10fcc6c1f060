//! What the writer writes, the reader reads back the same, whatever it is; and the reader does not need a
//! buffered, obliging source for it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::io::{self, Read};

use hypura_core::gguf::{Array, GgmlType, GgufError, HeaderBuilder, Layout, Value, read_header};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn floats() -> impl Strategy<Value = f32> {
    // NaN is not equal to itself; all other bit patterns are.
    any::<u32>().prop_map(f32::from_bits).prop_filter("comparable", |v| !v.is_nan())
}

fn arrays() -> impl Strategy<Value = Array> {
    let leaf = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i8>(), 0..9).prop_map(Array::I8),
        vec(any::<u16>(), 0..9).prop_map(Array::U16),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u32>(), 0..9).prop_map(Array::U32),
        vec(any::<i32>(), 0..9).prop_map(Array::I32),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(any::<i64>(), 0..9).prop_map(Array::I64),
        vec(floats(), 0..9).prop_map(Array::F32),
        vec(floats().prop_map(f64::from), 0..9).prop_map(Array::F64),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec(".{0,8}", 0..9).prop_map(Array::String),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| vec(inner, 0..4).prop_map(Array::Nested))
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        floats().prop_map(Value::F32),
        floats().prop_map(|v| Value::F64(v.into())),
        any::<bool>().prop_map(Value::Bool),
        ".{0,40}".prop_map(Value::String),
        arrays().prop_map(Value::Array),
    ]
}

fn tensors() -> impl Strategy<Value = (Vec<u64>, GgmlType)> {
    let ty = (0..GgmlType::ALL.len()).prop_map(|at| GgmlType::ALL[at]);
    (vec(1_u64..20, 1..=4), ty).prop_map(|(mut shape, ty)| {
        shape[0] *= ty.block_elements();
        (shape, ty)
    })
}

prop_compose! {
    fn builders()(
        keys in btree_map("[a-z.]{1,20}", values(), 0..12),
        tensors in btree_map("[a-z0-9._]{1,63}", tensors(), 0..12),
        alignment in proptest::option::of(0_u32..13),
    ) -> HeaderBuilder {
        let mut builder = HeaderBuilder::new();
        for (key, value) in keys {
            builder.set(key, value);
        }
        if let Some(power) = alignment {
            builder.set_alignment(1 << power);
        }
        for (name, (shape, ty)) in tensors {
            builder.tensor(name, &shape, ty);
        }
        builder
    }
}

fn written(builder: &HeaderBuilder) -> (Vec<u8>, Layout) {
    let mut bytes = Vec::new();
    let layout = builder.write_header(&mut bytes).unwrap();
    (bytes, layout)
}

/// Gives one to three bytes at a time, with interruptions.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(self.1 % 3 + 1);
        self.0.read(&mut buffer[..length])
    }
}

proptest! {
    #[test]
    fn reader_reads_what_writer_wrote(mut builder in builders()) {
        let (bytes, layout) = written(&builder);
        prop_assert_eq!(bytes.len() as u64, layout.data_start);
        prop_assert_eq!(&builder.layout().unwrap(), &layout);

        let header = read_header(bytes.as_slice(), layout.file_bytes).unwrap();
        prop_assert_eq!(header.version, 3);
        prop_assert_eq!(header.alignment, layout.alignment);
        prop_assert_eq!(header.data_start, layout.data_start);
        prop_assert_eq!(&header.tensors, &layout.tensors);
        prop_assert_eq!(&header.metadata, &*builder.metadata_mut());
        prop_assert_eq!(&read_header(Trickle(&bytes, 0), layout.file_bytes).unwrap(), &header);
    }

    #[test]
    fn tensors_are_laid_end_to_end(builder in builders()) {
        let layout = builder.layout().unwrap();
        let mut at = layout.data_start;
        for (index, tensor) in layout.tensors.iter().enumerate() {
            prop_assert_eq!(tensor.offset, at);
            prop_assert!(layout.padding_after(index) < layout.alignment);
            at += tensor.bytes + layout.padding_after(index);
            prop_assert_eq!(at % layout.alignment, 0);
        }
        prop_assert_eq!(at, layout.file_bytes);
        prop_assert_eq!(layout.padding_after(layout.tensors.len()), 0);
    }

    /// Cut anywhere, a file is refused, unless only the padding of its last tensor is gone.
    #[test]
    fn truncated_headers_are_refused(builder in builders()) {
        let (bytes, layout) = written(&builder);
        let whole = read_header(bytes.as_slice(), layout.file_bytes).unwrap();
        let needed = layout.tensors.last().map(|last| last.offset + last.bytes);
        for cut in 0..bytes.len() {
            let result = read_header(&bytes[..cut], cut as u64);
            match needed {
                // A header without tensors is complete before its padding.
                None if result.is_ok() => prop_assert_eq!(&result.unwrap(), &whole),
                _ => prop_assert!(result.is_err(), "cut at {} of {}", cut, bytes.len()),
            }
            // A file that is shorter than it was said to be is no better.
            let result = read_header(&bytes[..cut], layout.file_bytes);
            prop_assert!(result.is_err() || result.unwrap() == whole);
        }
        if let Some(needed) = needed {
            prop_assert_eq!(&read_header(bytes.as_slice(), needed).unwrap(), &whole);
            let beyond = matches!(read_header(bytes.as_slice(), needed - 1), Err(GgufError::BeyondFile { .. }));
            prop_assert!(beyond);
        }
    }
}

#[test]
fn large_vocabularies_and_long_strings_survive_chunking() {
    let tokens: Vec<String> = (0..50_000).map(|n| format!("token{n}")).collect();
    let scores: Vec<f32> = (0..50_000).map(|n| n as f32).collect();
    let template = "x".repeat(300_000);
    let mut builder = HeaderBuilder::new();
    builder.set("tokens", tokens.clone()).set("scores", scores.clone()).set("template", template.as_str());
    let (bytes, layout) = written(&builder);
    let header = read_header(bytes.as_slice(), layout.file_bytes).unwrap();
    assert_eq!(header.metadata.str_array("tokens").unwrap(), Some(tokens.as_slice()));
    assert_eq!(header.metadata.get("scores"), Some(&Value::from(scores)));
    assert_eq!(header.metadata.str("template").unwrap(), Some(template.as_str()));
}

#[test]
fn version_2_is_read_like_version_3() {
    let mut builder = HeaderBuilder::new();
    builder.set("k", 7_u32).tensor("t", &[4], GgmlType::F32);
    let (mut bytes, layout) = written(&builder);
    let three = read_header(bytes.as_slice(), layout.file_bytes).unwrap();
    bytes[4] = 2;
    let two = read_header(bytes.as_slice(), layout.file_bytes).unwrap();
    assert_eq!(two.version, 2);
    assert_eq!((two.metadata, two.tensors), (three.metadata, three.tensors));
}

#[test]
fn getters_take_any_integer_and_name_the_key_of_a_wrong_type() {
    let mut builder = HeaderBuilder::new();
    builder.set("small", 7_u8).set("signed", 7_i64).set("negative", -1_i32).set("wide", 1_u64 << 40);
    builder.set("text", "x").set("double", 0.5_f64).set("flags", vec![true, false]);
    let metadata = builder.metadata_mut();
    assert_eq!(metadata.u32("small").unwrap(), Some(7));
    assert_eq!(metadata.u64("signed").unwrap(), Some(7));
    assert_eq!(metadata.u64("wide").unwrap(), Some(1 << 40));
    assert_eq!(metadata.f32("double").unwrap(), Some(0.5));
    assert_eq!(metadata.u64_array("flags").unwrap(), Some(vec![1, 0]));
    assert_eq!(metadata.u32("absent").unwrap(), None);
    for key in ["negative", "wide", "text", "flags"] {
        let error = metadata.u32(key).unwrap_err();
        assert!(matches!(&error, GgufError::WrongType { key: named, .. } if named == key), "{error}");
    }
    assert_eq!(metadata.insert("small", 9_u8), Some(Value::U8(7)));
    assert_eq!(metadata.iter().next(), Some(("small", &Value::U8(9))));
}

//! The twin of the fuzz target `gguf_header`, for every test run: valid headers with bytes changed, cut or
//! repeated, and plain noise. Nothing may panic, and what is accepted must keep the reader's promises.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::HashSet;

use hypura_core::gguf::{Array, GgmlType, Header, HeaderBuilder, merge, read_header};
use hypura_core::model::{ExpertKey, KvRequest, ModelShape};
use proptest::collection::vec;
use proptest::prelude::*;

/// A small model that has something of everything, and the size of its header.
fn valid() -> (Vec<u8>, usize) {
    let mut builder = HeaderBuilder::new();
    builder.set("general.architecture", "llama").set("llama.block_count", 2_u32);
    builder.set("llama.embedding_length", 32_u32).set("llama.context_length", 64_u32);
    builder.set("llama.attention.head_count", 4_u32).set("llama.attention.head_count_kv", vec![2_u32, 2]);
    builder.set("llama.expert_count", 4_u32).set("llama.expert_used_count", 2_u32);
    builder.set("tokenizer.ggml.tokens", vec!["a".to_owned(), "b".to_owned()]);
    builder.set("nested", Array::Nested(vec![Array::F32(vec![1.0]), Array::Bool(vec![true])]));
    builder.tensor("token_embd.weight", &[32, 2], GgmlType::F32);
    for layer in 0..2 {
        builder.tensor(format!("blk.{layer}.attn_k.weight"), &[32, 16], GgmlType::Q8_0);
        for part in ["gate", "up", "down"] {
            builder.tensor(format!("blk.{layer}.ffn_{part}_exps.weight"), &[32, 32, 4], GgmlType::Q4_0);
        }
    }
    let mut bytes = Vec::new();
    let layout = builder.write_header(&mut bytes).unwrap();
    bytes.resize(layout.file_bytes as usize, 0);
    (bytes, layout.data_start as usize)
}

#[derive(Debug, Clone)]
enum Mutation {
    Byte { at: usize, to: u8 },
    Word { at: usize, to: u64 },
    Cut { at: usize },
    Repeat { at: usize, length: usize },
}

fn mutations(length: usize) -> impl Strategy<Value = Mutation> {
    let word = prop_oneof![
        any::<u64>(),
        0_u64..64,
        (0_u32..64).prop_map(|power| 1_u64 << power),
        (0_u32..64).prop_map(|power| u64::MAX >> power),
    ];
    prop_oneof![
        4 => (0..length, any::<u8>()).prop_map(|(at, to)| Mutation::Byte { at, to }),
        4 => (0..length, word).prop_map(|(at, to)| Mutation::Word { at, to }),
        1 => (0..length).prop_map(|at| Mutation::Cut { at }),
        1 => (0..length, 1_usize..64).prop_map(|(at, length)| Mutation::Repeat { at, length }),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    match *mutation {
        Mutation::Byte { at, to } => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
        }
        Mutation::Word { at, to } => {
            if let Some(word) = bytes.get_mut(at..at + 8) {
                word.copy_from_slice(&to.to_le_bytes());
            }
        }
        Mutation::Cut { at } => bytes.truncate(at),
        Mutation::Repeat { at, length } => {
            if let Some(part) = bytes.get(at..at + length).map(<[u8]>::to_vec) {
                bytes.splice(at..at, part);
            }
        }
    }
}

/// What the reader promises of a header that it accepts.
fn check(header: &Header, file_bytes: u64) {
    assert!(header.alignment.is_power_of_two());
    let mut names = HashSet::new();
    let mut spans = Vec::new();
    for tensor in &header.tensors {
        assert!(names.insert(&tensor.name) && !tensor.name.is_empty());
        assert!((1..=4).contains(&tensor.shape.len()) && !tensor.shape.contains(&0));
        let rows: u64 = tensor.shape[1..].iter().product();
        assert_eq!(tensor.ty.row_bytes(tensor.shape[0]).unwrap() * rows, tensor.bytes);
        assert_eq!(tensor.offset % header.alignment, 0);
        spans.push((tensor.offset, tensor.offset + tensor.bytes));
    }
    spans.sort_unstable();
    assert!(spans.iter().all(|&(start, end)| start >= header.data_start && end <= file_bytes));
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
}

/// Reads `bytes`, and whatever follows from them, as a caller would; returns whether it was a model.
fn exercise(bytes: &[u8]) -> bool {
    let file_bytes = bytes.len() as u64;
    let Ok(header) = read_header(bytes, file_bytes) else { return false };
    check(&header, file_bytes);
    let Ok(set) = merge(vec![header], vec![file_bytes]) else { return false };
    let Ok(model) = ModelShape::from_gguf(&set) else { return false };
    assert!(model.routed_bytes_per_token() <= model.routed_bytes());
    assert!(model.active_bytes_per_token() <= model.total_bytes());
    for layer in &model.expert_layers {
        for expert in 0..layer.experts {
            for (_, slice) in model.slices(ExpertKey { layer: layer.layer, expert }) {
                assert!(slice.offset + slice.bytes <= file_bytes);
            }
        }
    }
    // An error is fine here, a panic is not.
    let _ = model.kv_bytes(&KvRequest::single(u64::MAX));
    true
}

#[test]
fn the_seed_is_a_model() {
    assert!(exercise(&valid().0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn mutated_headers_do_no_harm(changes in vec(mutations(valid().1), 1..5)) {
        let (mut bytes, _) = valid();
        for change in &changes {
            mutate(&mut bytes, change);
        }
        exercise(&bytes);
    }

    #[test]
    fn noise_does_no_harm(noise in vec(any::<u8>(), 0..400), tensors in 0_u64..4, keys in 0_u64..4) {
        exercise(&noise);
        let mut bytes = [b"GGUF\x03\x00\x00\x00".as_slice(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat();
        bytes.extend(noise);
        exercise(&bytes);
    }
}

//! Model shapes of the architectures that matter, from small headers, and the demo model as it is shipped.

use super::*;
use crate::gguf::{GgmlType, GgufSet, HeaderBuilder, Value, merge, read_header};

const LAYERS: u32 = 4;

/// A header of architecture `arch` with the keys that every model has.
fn model(arch: &str, embedding: u64) -> HeaderBuilder {
    let mut builder = HeaderBuilder::new();
    builder.set("general.architecture", arch).set("general.name", "test");
    set(&mut builder, arch, "block_count", LAYERS);
    set(&mut builder, arch, "embedding_length", embedding);
    set(&mut builder, arch, "context_length", 4096_u32);
    set(&mut builder, arch, "attention.head_count", 8_u32);
    set(&mut builder, arch, "attention.head_count_kv", 2_u32);
    builder.tensor("token_embd.weight", &[embedding, 1000], GgmlType::Q4_0);
    builder.tensor("output_norm.weight", &[embedding], GgmlType::F32);
    builder.tensor("output.weight", &[embedding, 1000], GgmlType::Q8_0);
    builder
}

fn set(builder: &mut HeaderBuilder, arch: &str, key: &str, value: impl Into<Value>) {
    builder.set(format!("{arch}.{key}"), value);
}

fn moe_keys(builder: &mut HeaderBuilder, arch: &str, experts: u32, used: u32) {
    set(builder, arch, "expert_count", experts);
    set(builder, arch, "expert_used_count", used);
}

fn attention(builder: &mut HeaderBuilder, layer: u32, embedding: u64) {
    for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
        builder.tensor(format!("blk.{layer}.{name}.weight"), &[embedding, 256], GgmlType::Q8_0);
    }
    builder.tensor(format!("blk.{layer}.attn_norm.weight"), &[embedding], GgmlType::F32);
}

/// Gate, up and down stacks of `experts` experts of width `width`.
fn stacks(
    builder: &mut HeaderBuilder,
    layer: u32,
    (embedding, width, experts): (u64, u64, u64),
    ty: GgmlType,
) {
    builder.tensor(format!("blk.{layer}.ffn_gate_inp.weight"), &[embedding, experts], GgmlType::F32);
    builder.tensor(format!("blk.{layer}.ffn_gate_exps.weight"), &[embedding, width, experts], ty);
    builder.tensor(format!("blk.{layer}.ffn_up_exps.weight"), &[embedding, width, experts], ty);
    builder.tensor(format!("blk.{layer}.ffn_down_exps.weight"), &[width, embedding, experts], ty);
}

fn gguf(builder: &HeaderBuilder) -> GgufSet {
    let mut bytes = Vec::new();
    let layout = builder.write_header(&mut bytes).unwrap();
    merge(vec![read_header(bytes.as_slice(), layout.file_bytes).unwrap()], vec![layout.file_bytes]).unwrap()
}

fn shape(builder: &HeaderBuilder) -> ModelShape {
    ModelShape::from_gguf(&gguf(builder)).unwrap()
}

fn error(builder: &HeaderBuilder) -> ModelError {
    ModelShape::from_gguf(&gguf(builder)).unwrap_err()
}

fn parts(shape: &ModelShape, layer: u32) -> Vec<(ExpertPart, u64)> {
    shape.expert_layer(layer).unwrap().parts.iter().map(|part| (part.part, part.slice_bytes)).collect()
}

/// All slices of all experts of a layer, part by part, are exactly the stacked tensors, end to end.
fn assert_slices_tile(shape: &ModelShape, layer: u32) {
    let found = shape.expert_layer(layer).unwrap();
    for stack in &found.parts {
        let info = &shape.tensors[stack.tensor].info;
        let mut at = info.offset;
        for expert in 0..found.experts {
            let slice = shape.slice(ExpertKey { layer, expert }, stack.part).unwrap();
            assert_eq!((slice.shard, slice.offset), (info.shard, at));
            at += slice.bytes;
        }
        assert_eq!(at, info.offset + info.bytes);
        assert_eq!(shape.slice(ExpertKey { layer, expert: found.experts }, stack.part), None);
        assert_eq!(shape.slice(ExpertKey { layer, expert: u32::MAX }, stack.part), None);
    }
}

mod architectures;
mod kv;
mod refusals;

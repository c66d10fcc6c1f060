//! Roles, experts and sizes of known architectures.

use std::fs::File;
use std::path::Path;

use super::*;

#[test]
fn mixtral() {
    let mut builder = model("llama", 512);
    moe_keys(&mut builder, "llama", 8, 2);
    for layer in 0..LAYERS {
        attention(&mut builder, layer, 512);
        // As Q4_K_M files do it: some layers have larger types.
        let ty = if layer == 1 { GgmlType::Q6_K } else { GgmlType::Q4_K };
        stacks(&mut builder, layer, (512, 256, 8), ty);
    }
    let shape = shape(&builder);
    assert_eq!((shape.layers, shape.experts, shape.experts_used), (LAYERS, 8, 2));
    assert_eq!((shape.shared_experts, shape.leading_dense_layers(), shape.vocab), (0, 0, 1000));
    let slice = 512 * 256 / 256 * 144;
    assert_eq!(
        parts(&shape, 0),
        [(ExpertPart::Gate, slice), (ExpertPart::Up, slice), (ExpertPart::Down, slice)]
    );
    assert_slices_tile(&shape, 3);

    let large = 512 * 256 / 256 * 210;
    let classes = shape.size_classes();
    assert_eq!(classes.len(), 2);
    assert_eq!((&classes[0].slice_bytes, &classes[0].layers), (&vec![slice; 3], &vec![0, 2, 3]));
    assert_eq!((&classes[1].slice_bytes, &classes[1].layers), (&vec![large; 3], &vec![1]));
    assert_eq!((classes[0].experts, classes[1].expert_bytes()), (24, 3 * large));

    assert_eq!(shape.routed_bytes(), 8 * 3 * (3 * slice + large));
    assert_eq!(shape.routed_bytes_per_token(), 2 * 3 * (3 * slice + large));
    let embedding = shape.bytes_by_role()[&TensorRole::Embedding];
    let unused = shape.routed_bytes() - shape.routed_bytes_per_token();
    assert_eq!(shape.active_bytes_per_token(), shape.total_bytes() - unused - embedding);
    assert_eq!(shape.bytes_by_role().values().sum::<u64>(), shape.total_bytes());
}

#[test]
fn qwen3moe_with_many_experts() {
    let mut builder = model("qwen3moe", 256);
    moe_keys(&mut builder, "qwen3moe", 128, 8);
    for layer in 0..LAYERS {
        stacks(&mut builder, layer, (256, 256, 128), GgmlType::Q4_K);
    }
    let shape = shape(&builder);
    assert_eq!((shape.experts, shape.experts_used, shape.size_classes().len()), (128, 8, 1));
    assert_slices_tile(&shape, 0);
    let first = shape.slices(ExpertKey { layer: 2, expert: 127 }).map(|(part, _)| part).collect::<Vec<_>>();
    assert_eq!(first, [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down]);
    assert_eq!(shape.slices(ExpertKey { layer: 9, expert: 0 }).count(), 0);
}

#[test]
fn gpt_oss_keeps_biases_resident() {
    let mut builder = model("gpt-oss", 2880);
    moe_keys(&mut builder, "gpt-oss", 4, 2);
    for layer in 0..LAYERS {
        stacks(&mut builder, layer, (2880, 2880, 4), GgmlType::MXFP4);
        builder.tensor(format!("blk.{layer}.ffn_gate_inp.bias"), &[4], GgmlType::F32);
        for part in ["gate", "up", "down"] {
            builder.tensor(format!("blk.{layer}.ffn_{part}_exps.bias"), &[2880, 4], GgmlType::F32);
        }
    }
    let shape = shape(&builder);
    assert_eq!(parts(&shape, 0).iter().map(|part| part.1).collect::<Vec<_>>(), [4_406_400; 3]);
    assert_slices_tile(&shape, 1);
    // Slices are not whole pages: shifts differ from expert to expert, and every window covers its slice.
    let mut shifts = std::collections::BTreeSet::new();
    for expert in 0..4 {
        let slice = shape.slice(ExpertKey { layer: 1, expert }, ExpertPart::Up).unwrap();
        let window = slice.window(4096);
        assert_eq!((window.offset % 4096, window.bytes % 4096), (0, 0));
        assert_eq!(window.offset + window.shift, slice.offset);
        assert!(window.shift < 4096 && window.bytes >= window.shift + slice.bytes);
        assert!(window.bytes < window.shift + slice.bytes + 4096);
        shifts.insert(window.shift);
    }
    assert_eq!(shifts.len(), 4);
    let bias = shape.tensors.iter().find(|t| t.info.name == "blk.0.ffn_down_exps.bias").unwrap();
    assert_eq!(bias.role, TensorRole::RoutedExpertBias(ExpertPart::Down));
    assert_eq!(bias.streaming, Streaming::No);
}

#[test]
fn deepseek2_has_a_dense_layer_and_shared_experts() {
    let shape = shape(&deepseek2());
    assert_eq!((shape.layers, shape.nextn_layers), (3, 1));
    assert_eq!((shape.leading_dense_layers(), shape.shared_experts), (1, 1));
    assert_eq!(shape.expert_layers.iter().map(|l| l.layer).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(shape.nextn_expert_layers.iter().map(|l| l.layer).collect::<Vec<_>>(), [3]);
    assert!(shape.expert_layer(3).is_some() && shape.expert_layer(0).is_none());
    let bytes = shape.bytes_by_role();
    assert!(bytes[&TensorRole::SharedExpert] > 0 && bytes[&TensorRole::DenseFfn(FfnPart::Gate)] > 0);
    // The layer of multi-token prediction is in the file, but no token passes it.
    let one_layer = 2 * shape.expert_layers[0].expert_bytes();
    assert_eq!(shape.routed_bytes_per_token(), 2 * one_layer);
}

#[test]
fn dense_llama_streams_matrices_whole() {
    let mut builder = model("llama", 512);
    for layer in 0..LAYERS {
        attention(&mut builder, layer, 512);
        for name in ["ffn_gate", "ffn_up", "ffn_down"] {
            builder.tensor(format!("blk.{layer}.{name}.weight"), &[512, 512], GgmlType::Q4_K);
        }
    }
    let shape = shape(&builder);
    assert!(shape.is_dense() && shape.size_classes().is_empty());
    assert_eq!((shape.experts, shape.leading_dense_layers(), shape.routed_bytes_per_token()), (0, LAYERS, 0));
    let whole = shape.tensors.iter().filter(|tensor| tensor.streaming == Streaming::Whole).count();
    assert_eq!(whole, 7 * LAYERS as usize);
    assert!(shape.tensors.iter().all(|tensor| tensor.streaming != Streaming::Experts));
}

#[test]
fn an_embedding_that_is_the_output_too_is_touched_by_every_token() {
    let mut builder = HeaderBuilder::new();
    builder.set("general.architecture", "llama").set("llama.block_count", 1_u32);
    builder.set("llama.embedding_length", 32_u32).set("llama.context_length", 64_u32);
    builder.tensor("token_embd.weight", &[32, 100], GgmlType::F16);
    let shape = shape(&builder);
    assert_eq!(shape.active_bytes_per_token(), shape.total_bytes());
}

#[test]
fn fused_and_gateless_experts() {
    let mut builder = model("llama4", 256);
    moe_keys(&mut builder, "llama4", 4, 1);
    builder.tensor("blk.1.ffn_down_exps.weight", &[256, 256, 4], GgmlType::Q8_0);
    builder.tensor("blk.1.ffn_gate_up_exps.weight", &[256, 512, 4], GgmlType::Q8_0);
    builder.tensor("blk.3.ffn_up_exps.weight", &[256, 512, 4], GgmlType::Q8_0);
    builder.tensor("blk.3.ffn_down_exps.weight", &[512, 256, 4], GgmlType::Q8_0);
    let shape = shape(&builder);
    assert_eq!(parts(&shape, 1), [(ExpertPart::GateUp, 139_264), (ExpertPart::Down, 69_632)]);
    assert_eq!(parts(&shape, 3), [(ExpertPart::Up, 139_264), (ExpertPart::Down, 139_264)]);
    assert_slices_tile(&shape, 1);
}

#[test]
fn experts_used_may_differ_by_layer() {
    let mut builder = model("llama", 256);
    set(&mut builder, "llama", "expert_used_count", vec![1_u32, 2, 3, 4]);
    for layer in 0..LAYERS {
        stacks(&mut builder, layer, (256, 256, 4), GgmlType::Q8_0);
    }
    let shape = shape(&builder);
    assert_eq!(shape.expert_layers.iter().map(|layer| layer.used).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(shape.experts_used, 4);
}

#[test]
fn the_demo_model_is_what_its_readme_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo/demo-moe-Q4_K_M.gguf");
    let file = File::open(&path).unwrap();
    let file_bytes = file.metadata().unwrap().len();
    let header = read_header(file, file_bytes).unwrap();
    let shape = ModelShape::from_gguf(&merge(vec![header], vec![file_bytes]).unwrap()).unwrap();
    assert_eq!((shape.architecture.as_str(), shape.layers, shape.embedding), ("qwen3moe", 6, 512));
    assert_eq!((shape.experts, shape.experts_used, shape.vocab), (24, 4, 8192));
    assert_eq!(shape.context_train, 1024);
    let layer = &shape.layer_shapes[0];
    assert_eq!((layer.heads, layer.kv_heads, layer.key_len, layer.value_len), (8, 2, 64, 64));
    let classes: Vec<_> = shape.size_classes().into_iter().map(|c| (c.slice_bytes, c.layers)).collect();
    assert_eq!(classes, [(vec![73_728; 3], vec![0, 1, 3, 4]), (vec![73_728, 73_728, 107_520], vec![2, 5])]);
    for layer in 0..6 {
        assert_slices_tile(&shape, layer);
    }
    assert_eq!(shape.kv_bytes(&KvRequest::single(1024)).unwrap(), 6 * 1024 * 2 * (2 * 64) * 2);
}

/// Three layers, the first dense, and one of multi-token prediction; latent attention as converters write it
/// since 2025.
pub(super) fn deepseek2() -> HeaderBuilder {
    const ARCH: &str = "deepseek2";
    let mut builder = model(ARCH, 256);
    moe_keys(&mut builder, ARCH, 8, 2);
    set(&mut builder, ARCH, "nextn_predict_layers", 1_u32);
    set(&mut builder, ARCH, "leading_dense_block_count", 1_u32);
    set(&mut builder, ARCH, "expert_shared_count", 1_u32);
    set(&mut builder, ARCH, "attention.head_count_kv", 1_u32);
    set(&mut builder, ARCH, "attention.kv_lora_rank", 512_u32);
    set(&mut builder, ARCH, "attention.key_length", 576_u32);
    set(&mut builder, ARCH, "attention.value_length", 512_u32);
    set(&mut builder, ARCH, "attention.key_length_mla", 192_u32);
    set(&mut builder, ARCH, "attention.value_length_mla", 128_u32);
    for layer in 0..LAYERS {
        builder.tensor(format!("blk.{layer}.attn_kv_a_mqa.weight"), &[256, 576], GgmlType::Q8_0);
        builder.tensor(format!("blk.{layer}.attn_k_b.weight"), &[128, 512, 8], GgmlType::Q8_0);
        let dense = if layer == 0 { "" } else { "_shexp" };
        for part in ["gate", "up", "down"] {
            builder.tensor(format!("blk.{layer}.ffn_{part}{dense}.weight"), &[256, 256], GgmlType::Q4_K);
        }
        if layer > 0 {
            stacks(&mut builder, layer, (256, 256, 8), GgmlType::Q4_K);
            builder.tensor(format!("blk.{layer}.exp_probs_b.bias"), &[8], GgmlType::F32);
        }
    }
    builder
}

//! Files that are GGUF but no model that can be run: each is refused with its reason.

use super::*;

#[test]
fn missing_and_absurd_keys() {
    let error_of = error(&HeaderBuilder::new());
    assert!(
        matches!(&error_of, ModelError::MissingKey { key } if key == "general.architecture"),
        "{error_of}"
    );
    let mut clip = HeaderBuilder::new();
    clip.set("general.architecture", "clip");
    assert!(matches!(error(&clip), ModelError::MissingKey { key } if key == "clip.block_count"));
    for layers in [0_u64, 513, u64::MAX] {
        let mut builder = model("llama", 512);
        set(&mut builder, "llama", "block_count", layers);
        assert!(matches!(error(&builder), ModelError::OutOfRange { value, .. } if value == layers));
    }
    let mut builder = model("llama", 512);
    set(&mut builder, "llama", "nextn_predict_layers", LAYERS + 1);
    assert!(matches!(error(&builder), ModelError::OutOfRange { .. }));
    let mut builder = model("llama", 512);
    set(&mut builder, "llama", "attention.head_count_kv", vec![1_u32, 2]);
    assert!(matches!(error(&builder), ModelError::PerLayerLength { found: 2, layers: LAYERS, .. }));
    let mut builder = model("llama", 512);
    set(&mut builder, "llama", "embedding_length", "wide");
    assert!(matches!(error(&builder), ModelError::Metadata(_)));
}

#[test]
fn a_vocabulary_with_a_token_twice() {
    let mut builder = model("llama", 512);
    let vocabulary = ["a", "", "b", ""].map(str::to_owned).to_vec();
    builder.set("tokenizer.ggml.tokens", vocabulary);
    assert_eq!(shape(&builder).vocab, 4);
    let vocabulary = ["a", "b", "a"].map(str::to_owned).to_vec();
    builder.set("tokenizer.ggml.tokens", vocabulary);
    assert!(matches!(error(&builder), ModelError::RepeatedToken { token } if token == "a"));
}

#[test]
fn experts_of_the_old_layout() {
    let mut builder = model("llama", 512);
    moe_keys(&mut builder, "llama", 8, 2);
    builder.tensor("blk.0.ffn_gate.0.weight", &[512, 512], GgmlType::Q4_0);
    let error = error(&builder);
    assert!(matches!(error, ModelError::UnstackedExperts { .. }), "{error}");
    assert!(error.to_string().contains("convert the model again"));
}

#[test]
fn incomplete_and_inconsistent_stacks() {
    let with = |tensors: &[(&str, &[u64])], used: u32| {
        let mut builder = model("llama", 256);
        moe_keys(&mut builder, "llama", 8, used);
        for (name, shape) in tensors {
            builder.tensor(*name, shape, GgmlType::Q8_0);
        }
        error(&builder)
    };
    let (up, down) = ("blk.1.ffn_up_exps.weight", "blk.1.ffn_down_exps.weight");
    let stack: &[u64] = &[256, 256, 8];
    assert!(matches!(with(&[(up, stack)], 2), ModelError::MissingPart { layer: 1, part: "down" }));
    assert!(matches!(with(&[(down, stack)], 2), ModelError::MissingPart { layer: 1, part: "up" }));
    let fewer: &[u64] = &[256, 256, 4];
    assert!(matches!(
        with(&[(up, stack), (down, fewer)], 2),
        ModelError::ExpertCountsDiffer { layer: 1, found: 4, expected: 8, .. }
    ));
    for used in [0, 9] {
        assert!(matches!(
            with(&[(up, stack), (down, stack)], used),
            ModelError::ExpertsUsed { layer: 1, .. }
        ));
    }
    assert!(matches!(with(&[(up, &[256])], 2), ModelError::NotAStack { .. }));
    assert!(matches!(with(&[(up, &[256, 256, 8, 2])], 2), ModelError::NotAStack { .. }));
    let beyond: [(&str, &[u64]); 2] =
        [("blk.7.ffn_up_exps.weight", stack), ("blk.7.ffn_down_exps.weight", stack)];
    assert!(matches!(with(&beyond, 2), ModelError::LayerBeyondModel { layer: 7, layers: LAYERS, .. }));
}

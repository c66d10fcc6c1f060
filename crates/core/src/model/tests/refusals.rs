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
fn what_llama_cpp_asserts_on_is_named_first() {
    let with = |edit: &dyn Fn(&mut HeaderBuilder)| {
        let mut builder = model("llama", 256);
        edit(&mut builder);
        error(&builder).to_string()
    };
    let key = |name: &'static str, value: Value| {
        with(&|builder: &mut HeaderBuilder| set(builder, "llama", name, value.clone()))
    };
    for value in [f32::NAN, f32::INFINITY, -1e-6] {
        assert!(key("attention.layer_norm_rms_epsilon", value.into()).contains("norm"), "{value}");
    }
    assert!(key("rope.scaling.type", "mystery".to_owned().into()).contains("mystery"));
    assert!(key("classifier.activation", "mystery".to_owned().into()).contains("mystery"));
    assert!(key("expert_count", 1025_u32.into()).contains("1024"));
    assert!(key("expert_count", 8_u32.into()).contains("uses none"));
    assert!(key("expert_used_count", 2_u32.into()).contains("has no experts"));
    let none = with(&|builder: &mut HeaderBuilder| {
        moe_keys(builder, "llama", 8, 2);
        set(builder, "llama", "expert_count", 0_u32);
    });
    assert!(none.contains("has no experts"), "{none}");
    assert!(key("expert_group_count", 1_u32.into()).contains("too few experts"));
    let latent = with(&|builder: &mut HeaderBuilder| {
        set(builder, "llama", "rope.dimension_count", 64_u32);
        set(builder, "llama", "attention.key_length_mla", 64_u32);
    });
    assert!(latent.contains("without a position"), "{latent}");
    for (name, words) in [("expert_used_count", "fewer experts"), ("expert_group_count", "too few experts")] {
        let told = with(&|builder: &mut HeaderBuilder| {
            moe_keys(builder, "llama", 2, 1);
            set(builder, "llama", name, 3_u32);
        });
        assert!(told.contains(words), "{told}");
    }
    for (groups, used, words) in [(3, 1, "divide"), (4, 0, "and not all"), (4, 4, "and not all")] {
        let told = with(&|builder: &mut HeaderBuilder| {
            moe_keys(builder, "llama", 8, 2);
            set(builder, "llama", "expert_group_count", groups);
            set(builder, "llama", "expert_group_used_count", used);
        });
        assert!(told.contains(words), "{told}");
    }
    for name in
        ["attention.head_count", "attention.key_length", "rope.dimension_count", "feed_forward_length"]
    {
        assert!(key(name, (1_u32 << 31).into()).contains("must be between"), "{name}");
    }
    assert!(key("rope.dimension_count", 31_u32.into()).contains("pairs"));
    let rope = with(&|builder: &mut HeaderBuilder| {
        set(builder, "llama", "attention.key_length", 64_u32);
        set(builder, "llama", "rope.dimension_count", 66_u32);
    });
    assert!(rope.contains("fewer elements"), "{rope}");
}

#[test]
fn types_without_a_kernel_are_named() {
    let of = |name: &str, shape: &[u64], ty: GgmlType| {
        let mut builder = model("llama", 256);
        builder.tensor(name, shape, ty);
        ModelShape::from_gguf(&gguf(&builder)).err().map(|error| error.to_string())
    };
    use GgmlType::*;
    for ty in [I8, I16, I32, I64, F64, Q8_1, Q8_K] {
        let told = of("blk.0.attn_q.weight", &[256, 256], ty).unwrap_or_default();
        assert!(told.contains(ty.name()), "{ty}: {told}");
    }
    assert!(of("blk.0.attn_norm.weight", &[256], F16).is_some());
    assert!(of("blk.0.attn_q.bias", &[256], BF16).is_some());
    assert!(of("blk.0.ffn_up_exps.bias", &[256, 4], F16).is_some());
    assert!(of("rope_freqs.weight", &[64], F16).is_some());
    for (name, ty) in [("blk.0.attn_q.weight", BF16), ("blk.0.attn_norm.weight", F32), ("x.weight", I32)] {
        assert_eq!(of(name, &[256, 256], ty), None, "{name}");
    }
}

#[test]
fn a_quantisation_that_has_no_number() {
    let of = |number: u32| {
        let mut builder = model("llama", 256);
        builder.set("general.file_type", number);
        ModelShape::from_gguf(&gguf(&builder)).err()
    };
    assert!(matches!(of(283_429_494), Some(ModelError::Unusable { .. })));
    assert!([0, 38, 1024 + 7].into_iter().all(|number| of(number).is_none()));
}

/// A text was cut for ever.
#[test]
fn an_rwkv_vocabulary_without_single_bytes() {
    let of = |tokens: &[&str]| {
        let mut builder = model("llama", 256);
        builder.set("tokenizer.ggml.model", "rwkv");
        builder.set("tokenizer.ggml.tokens", tokens.iter().map(ToString::to_string).collect::<Vec<_>>());
        ModelShape::from_gguf(&gguf(&builder)).err()
    };
    assert!(of(&["a", "ab"]).is_none());
    assert!(matches!(of(&["ab"]), Some(ModelError::Unusable { .. })));
}

#[test]
fn vocabularies_that_llama_cpp_would_not_survive() {
    let of = |tokens: &[&str]| {
        let mut builder = model("llama", 256);
        builder.set("tokenizer.ggml.tokens", tokens.iter().map(ToString::to_string).collect::<Vec<_>>());
        ModelShape::from_gguf(&gguf(&builder)).err()
    };
    for tokens in [&["a\0b", "a\0c"][..], &["", "b", "[EMPTY_0]"], &["\0x", "[EMPTY_0]"]] {
        assert!(matches!(of(tokens), Some(ModelError::RepeatedToken { .. })), "{tokens:?}");
    }
    assert!(of(&["\u{fffd}", "\u{fffd}"]).is_none(), "two that are no UTF-8 are not the same");
    let long = "lynx ".repeat(1000);
    assert!(matches!(of(&["a", &long]), Some(ModelError::LongToken { token: 1, bytes: 5000, most: 4096 })));
    assert!(of(&["a", &long[..4096]]).is_none());
    for name in ["no_vocab", "none"] {
        let mut builder = model("llama", 256);
        builder.set("tokenizer.ggml.model", name);
        assert!(matches!(error(&builder), ModelError::NoVocabulary));
    }
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

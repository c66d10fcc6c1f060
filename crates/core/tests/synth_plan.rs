//! Plans of synthetic models against what is published about the real ones, and against our own reader.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use hypura_core::gguf::{GgmlType, GgufSet, Header, ShardName, TensorInfo, merge, read_header};
use hypura_core::model::{ExpertKey, ExpertPart, ModelShape, TensorRole};
use hypura_core::synth::{Quant, Shape, SynthError, SynthOptions, SynthPlan};

fn plan(shape: Shape, quant: Quant) -> SynthPlan {
    SynthPlan::new(&SynthOptions::new(shape, quant)).unwrap()
}

fn headers(plan: &SynthPlan) -> Vec<Header> {
    plan.shards()
        .iter()
        .map(|shard| read_header(shard.header.as_slice(), shard.file_bytes).unwrap())
        .collect()
}

fn gguf(plan: &SynthPlan) -> GgufSet {
    merge(headers(plan), plan.shards().iter().map(|shard| shard.file_bytes).collect()).unwrap()
}

fn model(plan: &SynthPlan) -> ModelShape {
    ModelShape::from_gguf(&gguf(plan)).unwrap()
}

fn within(value: f64, expected: f64, tolerance: f64) -> bool {
    (value / expected - 1.0).abs() <= tolerance
}

/// Parameter counts as the model cards give them.
const PUBLISHED: [(Shape, f64); 6] = [
    (Shape::Mixtral8x7b, 46.7e9),
    (Shape::Llama70b, 70.6e9),
    (Shape::Qwen2_5_14b, 14.8e9),
    (Shape::Qwen3_30bA3b, 30.5e9),
    (Shape::GptOss120b, 117e9),
    (Shape::KimiK2, 1.03e12),
];

#[test]
fn parameters_are_as_published() {
    for (shape, published) in PUBLISHED {
        let parameters = plan(shape, Quant::Q4_K).parameters();
        assert!(within(parameters as f64, published, 0.01), "{shape}: {parameters}");
    }
}

#[test]
fn files_are_as_large_as_real_ones() {
    let sizes = [
        (Shape::Qwen3_30bA3b, Quant::Q4_K, 17.3e9),
        (Shape::Mixtral8x7b, Quant::Q5_K, 32.1e9),
        (Shape::Llama70b, Quant::Q4_K, 40.0e9),
        (Shape::GptOss120b, Quant::MXFP4, 63.4e9),
        (Shape::KimiK2, Quant::Q4_K, 578e9),
    ];
    for (shape, quant, expected) in sizes {
        let bytes = plan(shape, quant).file_bytes();
        assert!(within(bytes as f64, expected, 0.005), "{shape} {quant}: {bytes}");
    }
}

#[test]
fn models_with_tables_of_n_grams_have_the_weights_of_their_cards() {
    for (shape, all, table) in
        [(Shape::Qwen3_8FlashNext, 125e9 + 51e9, 51e9), (Shape::DeepSeekV4_1Flash, 552e9 + 196e9, 196e9)]
    {
        let plan = plan(shape, Quant::Q4_K);
        assert!(within(plan.parameters() as f64, all, 0.02), "{shape}: {}", plan.parameters());
        let elements = |tensor: &TensorInfo| tensor.shape.iter().product::<u64>();
        let named = plan.tensors().iter().find(|tensor| tensor.name == "per_layer_token_embd.weight");
        let found = named.map(elements).unwrap();
        assert!(within(found as f64, table, 0.01), "{shape}: {found}");
    }
}

#[test]
fn tiny_files_are_a_few_megabytes() {
    for &shape in Shape::ALL.iter().filter(|shape| shape.name().starts_with("tiny-")) {
        let bytes = plan(shape, shape.usual_quant()).file_bytes();
        assert!((1 << 20..10 << 20).contains(&bytes), "{shape}: {bytes}");
    }
}

#[test]
fn every_header_reads_back_in_every_quantisation() {
    for &shape in Shape::ALL {
        let big = [shape.usual_quant(), Quant::Q4_K_M];
        for &quant in if shape.name().starts_with("tiny-") { Quant::ALL } else { &big } {
            let plan = plan(shape, quant);
            let set = gguf(&plan);
            assert_eq!(set.tensors, plan.tensors(), "{shape} {quant}");
            let model = ModelShape::from_gguf(&set).unwrap();
            assert_eq!(model.tensors.len(), plan.tensors().len());
            let tokens = set.metadata.str_array("tokenizer.ggml.tokens").unwrap().unwrap();
            assert_eq!(model.vocab, tokens.len() as u64);
        }
    }
}

#[test]
fn tiny_shapes_have_the_structure_of_the_real_ones() {
    let pairs = [
        (Shape::Mixtral8x7b, Shape::TinyMixtral),
        (Shape::Llama70b, Shape::TinyLlama),
        (Shape::Qwen2_5_14b, Shape::TinyQwen2),
        (Shape::Qwen3_30bA3b, Shape::TinyQwen3Moe),
        (Shape::GptOss120b, Shape::TinyGptOss),
        (Shape::KimiK2, Shape::TinyKimiK2),
    ];
    for (real, tiny) in pairs {
        let mut cut = SynthOptions::new(real, real.usual_quant());
        cut.layers = Some(4);
        let (real, tiny) = (SynthPlan::new(&cut).unwrap(), plan(tiny, tiny.usual_quant()));
        let names = |plan: &SynthPlan| plan.tensors().iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&real), names(&tiny));
        let keys =
            |plan: &SynthPlan| gguf(plan).metadata.iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>();
        assert_eq!(keys(&real), keys(&tiny));
        let (real, tiny) = (model(&real), model(&tiny));
        assert_eq!(real.architecture, tiny.architecture);
        assert_eq!(real.leading_dense_layers(), tiny.leading_dense_layers());
        let roles = |model: &ModelShape| model.tensors.iter().map(|t| t.role).collect::<Vec<TensorRole>>();
        assert_eq!(roles(&real), roles(&tiny));
    }
}

#[test]
fn the_model_is_understood() {
    let kimi = model(&plan(Shape::KimiK2, Quant::Q4_K));
    assert_eq!(kimi.architecture, "deepseek2");
    assert_eq!((kimi.layers, kimi.experts, kimi.experts_used, kimi.shared_experts), (61, 384, 8, 1));
    assert_eq!(kimi.expert_layers.len(), 60);
    let oss = model(&plan(Shape::GptOss120b, Quant::MXFP4));
    assert_eq!((oss.experts, oss.experts_used, oss.vocab), (128, 4, 201_088));
    let llama = model(&plan(Shape::Llama70b, Quant::Q4_K));
    assert!(llama.is_dense());
    assert_eq!((llama.layers, llama.embedding, llama.context_train), (80, 8192, 131_072));
}

#[test]
fn expert_slices_have_their_real_sizes() {
    let slice = |shape, quant, part| {
        let key = ExpertKey { layer: 1, expert: 3 };
        model(&plan(shape, quant)).slice(key, part).unwrap().bytes
    };
    assert_eq!(slice(Shape::GptOss120b, Quant::MXFP4, ExpertPart::Down), 4_406_400);
    assert_eq!(slice(Shape::Qwen3_30bA3b, Quant::Q4_K, ExpertPart::Gate), 884_736);
    assert_eq!(slice(Shape::Mixtral8x7b, Quant::Q5_K, ExpertPart::Up), 40_370_176);
    assert_eq!(slice(Shape::KimiK2, Quant::Q4_K, ExpertPart::Down), 8_257_536);
}

#[test]
fn mixtures_give_two_size_classes() {
    assert_eq!(model(&plan(Shape::TinyMixtral, Quant::Q4_K)).size_classes().len(), 1);
    assert_eq!(model(&plan(Shape::TinyMixtral, Quant::Q4_K_M)).size_classes().len(), 2);
}

#[test]
fn outputs_have_more_bits_and_small_tensors_are_floats() {
    let plan = plan(Shape::TinyKimiK2, Quant::Q4_K);
    let ty = |name: &str| plan.tensors().iter().find(|tensor| tensor.name == name).unwrap().ty;
    assert_eq!(ty("output.weight"), GgmlType::Q6_K);
    assert_eq!(ty("token_embd.weight"), GgmlType::Q4_K);
    assert_eq!(ty("blk.1.ffn_gate_inp.weight"), GgmlType::F32);
    assert_eq!(ty("blk.1.exp_probs_b.bias"), GgmlType::F32);
    assert_eq!(ty("blk.1.attn_k_b.weight"), GgmlType::Q4_0);
}

#[test]
fn shards_join_to_the_same_model() {
    let mut options = SynthOptions::new(Shape::TinyKimiK2, Quant::Q4_K);
    let one = SynthPlan::new(&options).unwrap();
    for shards in [2, 3, 7, one.tensors().len() as u32] {
        options.shards = shards;
        let many = SynthPlan::new(&options).unwrap();
        assert_eq!(many.shards().len() as u32, shards);
        assert!(many.shards().iter().all(|shard| !shard.tensors.is_empty()));
        let set = gguf(&many);
        assert_eq!(set.tensors, many.tensors());
        let names = |plan: &SynthPlan| plan.tensors().iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&many), names(&one));
        let name = many.file_name("folder/model", 1);
        assert_eq!(ShardName::parse(&name).unwrap().index, 1, "{name}");
    }
    assert_eq!(one.file_name("folder/model", 0), "folder/model.gguf");
}

#[test]
fn three_shards_are_about_equal() {
    let mut options = SynthOptions::new(Shape::KimiK2, Quant::Q4_K);
    options.shards = 3;
    let sizes: Vec<u64> =
        SynthPlan::new(&options).unwrap().shards().iter().map(|shard| shard.file_bytes).collect();
    assert!(sizes.iter().all(|&bytes| within(bytes as f64, 578e9 / 3.0, 0.02)), "{sizes:?}");
}

#[test]
fn impossible_plans_are_refused_with_a_way_out() {
    let mut options = SynthOptions::new(Shape::TinyKimiK2, Quant::Q4_K);
    for layers in [0, 1, 26, 27, 513] {
        options.layers = Some(layers);
        let error = SynthPlan::new(&options).unwrap_err();
        assert!(matches!(error, SynthError::Layers { .. }), "{layers}: {error}");
        assert!(error.to_string().contains(&layers.to_string()));
    }
    options.layers = Some(2);
    for shards in [0, 1000, 70_000] {
        options.shards = shards;
        assert!(matches!(SynthPlan::new(&options), Err(SynthError::Shards { .. })), "{shards}");
    }
}

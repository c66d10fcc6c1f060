//! Sizes that no file has: arithmetic saturates, and what does not fit is refused.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod plan_common;

use hypura_core::model::ModelShape;
use hypura_core::plan::{
    Basis, CacheSize, Constraints, ContextShape, ExpertLayout, KvType, Ledger, PlanError, Purpose, Question,
    Residency, TierTable, Workload, choose_ubatch, estimate_needs, fill,
};
use hypura_core::synth::Shape;
use plan_common::{cases, fixed_machine, model_of_layers};
use proptest::prelude::*;

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_u64 << 20, (1_u64 << 40)..1 << 44, (u64::MAX >> 3)..=u64::MAX, Just(u64::MAX)]
}

/// A model whose tensors and experts are as large as somebody says.
fn hostile() -> impl Strategy<Value = ModelShape> {
    let shapes = prop::sample::select(vec![Shape::TinyMixtral, Shape::TinyKimiK2, Shape::TinyLlama]);
    (shapes, prop::collection::vec(size(), 1..20), any::<u32>()).prop_map(|(shape, sizes, used)| {
        let mut model = model_of_layers(shape, 3);
        let mut sizes = sizes.into_iter().cycle();
        model.tensors.iter_mut().for_each(|tensor| tensor.info.bytes = sizes.next().unwrap());
        for layer in &mut model.expert_layers {
            layer.used = used % 64;
            layer.parts.iter_mut().for_each(|part| part.slice_bytes = sizes.next().unwrap());
        }
        for layer in &mut model.layer_shapes {
            (layer.heads, layer.key_len) = (sizes.next().unwrap(), sizes.next().unwrap());
        }
        model.vocab = sizes.next().unwrap();
        model
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(300)))]

    #[test]
    fn plan_arithmetic_saturates_on_hostile_sizes(
        shape in hostile(), budget in size(), need in size(), residency in prop::sample::select(vec![
            Residency::Auto, Residency::Stream, Residency::Resident,
        ]),
        cache in prop::option::of(prop_oneof![
            size().prop_map(CacheSize::Bytes), (-1e3..1e3_f64).prop_map(CacheSize::Percent), Just(CacheSize::Percent(f64::NAN)),
        ]),
        kv in prop::sample::select(vec![KvType::F16, KvType::Q8_0]), context_tokens in any::<u32>(),
    ) {
        let layout = ExpertLayout::new(&shape);
        let context = ContextShape { context_tokens, kv, ..ContextShape::default() };
        let needs = Ledger::new()
            .with_host(Purpose::Kv, need, Basis::Estimated)
            .with_host(Purpose::Compute, need, Basis::Estimated);
        let constraints = Constraints { residency, cache, ..Constraints::on_host(&shape, context, budget, needs) };
        let _ = estimate_needs(&shape, &context);
        let _ = choose_ubatch(&shape, &layout, &constraints);
        match fill(&shape, &layout, &constraints) {
            Ok(plan) => {
                prop_assert!(plan.total_bytes() <= budget || budget > 1 << 53, "{:?}", plan);
                let _ = TierTable::new(&shape, &layout, &plan).total();
                let profile = fixed_machine(1e9);
                let workload = Workload { prompt_tokens: 8, ..Workload::default() };
                let question =
                    Question { shape: &shape, layout: &layout, profile: &profile, constraints: &constraints, workload };
                let (_, prediction) = question.answer().unwrap();
                let _ = question.alternatives(&prediction);
            }
            Err(PlanError::BelowFloor { floor_bytes, .. }) => prop_assert!(floor_bytes > budget || floor_bytes == u64::MAX),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn a_model_whose_size_overflows_never_fits() {
    let mut shape = model_of_layers(Shape::TinyLlama, 3);
    shape.tensors.iter_mut().for_each(|tensor| tensor.info.bytes = u64::MAX / 2);
    let layout = ExpertLayout::new(&shape);
    let constraints = Constraints::on_host(&shape, ContextShape::default(), u64::MAX - 1, Ledger::new());
    let Err(PlanError::BelowFloor { floor_bytes, .. }) = fill(&shape, &layout, &constraints) else {
        panic!("it fits")
    };
    assert_eq!(floor_bytes, u64::MAX);
}

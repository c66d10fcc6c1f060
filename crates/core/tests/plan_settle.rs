//! From what is asked to a plan: every step of the policy, in its order.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod plan_common;

use hypura_core::gguf::GgmlType;
use hypura_core::model::{ModelError, ModelShape};
use hypura_core::plan::{
    Basis, ContextShape, CostInput, Entry, ExpertHome, ExpertLayout, Homes, KvType, Ledger, MediaNeeds, Plan,
    PlanError, PlanRequest, PoolId, Pools, Purpose, Residency, SettleError, Settled, Workload,
    estimate_needs, predict, settle,
};
use hypura_core::profile::{GpuRates, Overhead, Profile};
use hypura_core::synth::Shape;
use plan_common::{cases, model, model_of_layers};
use proptest::prelude::*;

fn settled(shape: &ModelShape, request: &PlanRequest) -> Result<Settled, SettleError<ModelError>> {
    settle(shape, &ExpertLayout::new(shape), request, |context, _| estimate_needs(shape, context))
}

fn request(context: ContextShape) -> PlanRequest {
    PlanRequest { context, ..PlanRequest::default() }
}

fn of_tokens(context_tokens: u32) -> ContextShape {
    ContextShape { context_tokens, ..ContextShape::default() }
}

/// The least budget of the host for exactly this context.
fn floor(shape: &ModelShape, context: ContextShape) -> u64 {
    let asked = PlanRequest { pools: Pools::host(0), kv_may_shrink: false, ..request(context) };
    match settled(shape, &asked).unwrap_err() {
        SettleError::Plan(PlanError::BelowFloor { floor_bytes, .. }) => floor_bytes,
        error => panic!("{error:?}"),
    }
}

#[test]
fn contexts_and_ubatches_are_cut_to_what_the_model_can_have() {
    let mut shape = model(Shape::TinyMixtral);
    let trained = u32::try_from(shape.context_train).unwrap();
    let context = |request: &PlanRequest, shape: &ModelShape| settled(shape, request).unwrap().plan.context;
    let wide = context(&request(ContextShape { ubatch_tokens: u32::MAX, ..of_tokens(u32::MAX) }), &shape);
    assert_eq!((wide.context_tokens, wide.ubatch_tokens), (trained, trained));
    let none = context(&request(ContextShape { ubatch_tokens: 0, ..of_tokens(0) }), &shape);
    assert_eq!((none.context_tokens, none.ubatch_tokens), (1, 1));
    let small = ContextShape { ubatch_tokens: 8, ..of_tokens(256) };
    let pictures = MediaNeeds { bytes: 7, graph_tokens: 100 };
    let seen = settled(&shape, &PlanRequest { media: pictures, ..request(small) }).unwrap().plan;
    assert_eq!((seen.context.ubatch_tokens, seen.ledger.bytes_for(Purpose::Media)), (100, 7));
    let large = MediaNeeds { graph_tokens: 1000, ..pictures };
    assert_eq!(context(&PlanRequest { media: large, ..request(small) }, &shape).ubatch_tokens, 256);
    shape.is_causal = false;
    assert_eq!(context(&request(small), &shape).ubatch_tokens, 256, "an encoder sees all of a text");
}

#[test]
fn a_smaller_kv_cache_is_taken_only_where_nothing_else_works_and_said() {
    let shape = model(Shape::TinyQwen3Moe);
    let f16 = floor(&shape, of_tokens(2048));
    let q8_0 = floor(&shape, ContextShape { kv: KvType::Q8_0, ..of_tokens(2048) });
    assert!(q8_0 < f16);
    let with = |budget| PlanRequest { pools: Pools::host(budget), ..request(of_tokens(2048)) };
    let roomy = settled(&shape, &with(f16)).unwrap();
    assert_eq!((roomy.plan.context.kv, roomy.notes.len()), (KvType::F16, 0));
    let tight = settled(&shape, &with(f16 - 1)).unwrap();
    assert_eq!(tight.plan.context.kv, KvType::Q8_0);
    assert!(tight.notes[0].contains("q8_0"), "{:?}", tight.notes);
    let forced = PlanRequest { kv_may_shrink: false, ..with(f16 - 1) };
    assert!(matches!(settled(&shape, &forced), Err(SettleError::Plan(_))));
    match settled(&shape, &with(q8_0 - 1)) {
        Err(SettleError::Plan(PlanError::BelowFloor { floor_bytes, .. })) => assert_eq!(floor_bytes, q8_0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_context_that_nobody_asked_for_is_as_long_as_costs_little() {
    let mut shape = model(Shape::Qwen3_30bA3b);
    let trained = u32::try_from(shape.context_train).unwrap();
    let asked = PlanRequest { context_may_grow: true, ..request(of_tokens(4096)) };
    let plan = |shape: &ModelShape, budget: u64, asked: &PlanRequest| {
        let plan = settled(shape, &PlanRequest { pools: Pools::host(budget), ..asked.clone() }).unwrap().plan;
        assert!(plan.total_bytes() <= budget);
        plan
    };
    let tokens = |shape: &ModelShape, budget| plan(shape, budget, &asked).context.context_tokens;
    assert_eq!(tokens(&shape, u64::MAX), trained, "never more than training");
    let per_token = shape.kv_bytes_per_token(GgmlType::F16, GgmlType::F16).unwrap();
    let mut before = 4096;
    for gib in [4, 8, 12, 16, 24, 32, 48, 64, 128, 512] {
        let budget = gib << 30;
        let (short, long) = (plan(&shape, budget, &request(of_tokens(4096))), plan(&shape, budget, &asked));
        let tokens = long.context.context_tokens;
        assert!(u64::from(tokens - 4096) * per_token <= budget / 8, "{gib} GiB: {tokens}");
        assert_eq!((long.mode(), long.context.kv), (short.mode(), short.context.kv), "{gib} GiB");
        assert!(long.slot_bytes() >= short.slot_bytes() - short.slot_bytes() / 32, "{gib} GiB");
        assert_eq!(long.floor_bytes, short.floor_bytes, "it works in as little");
        assert!(tokens == trained || tokens.is_power_of_two());
        let streams = long.experts.is_some();
        assert!(
            tokens >= before || !streams && short.experts.is_none(),
            "{gib} GiB: {tokens} after {before}"
        );
        before = tokens;
    }
    assert!(before > 4096);
    let by_name = PlanRequest { context_may_grow: false, ..asked.clone() };
    assert_eq!(plan(&shape, u64::MAX, &by_name).context.context_tokens, 4096, "who asks gets what he asks");
    let barely = floor(&shape, of_tokens(4096));
    assert_eq!(tokens(&shape, barely), 4096, "nothing is left for more");
    shape.is_causal = false;
    assert_eq!(tokens(&shape, u64::MAX), 4096, "its context goes through in one graph");
}

/// llama.cpp's needs were once above the estimate that the longer context was chosen by.
#[test]
fn a_context_that_turns_out_to_cost_much_is_given_up() {
    let shape = model(Shape::TinyLlama);
    let layout = ExpertLayout::new(&shape);
    let needs = |context: &ContextShape, _: &Homes| {
        let bytes = if context.context_tokens > 512 { u64::MAX / 4 } else { 1000 };
        Ok::<_, ()>(Ledger::new().with_host(Purpose::Kv, bytes, Basis::Measured))
    };
    let pools = Pools::host(1 << 30);
    let asked = PlanRequest { pools, context_may_grow: true, ..request(of_tokens(128)) };
    let settled = settle(&shape, &layout, &asked, needs).unwrap();
    assert_eq!(settled.plan.context.context_tokens, 512);
}

#[test]
fn a_context_is_halved_only_where_that_is_allowed_and_last() {
    let shape = model(Shape::TinyQwen3Moe);
    let budget = floor(&shape, ContextShape { kv: KvType::Q8_0, ..of_tokens(1024) });
    assert!(floor(&shape, of_tokens(1024)) > budget, "f16 takes more");
    let asked = PlanRequest { pools: Pools::host(budget), ..request(of_tokens(2048)) };
    assert!(matches!(settled(&shape, &asked), Err(SettleError::Plan(_))));
    let halved = settled(&shape, &PlanRequest { least_context_tokens: Some(512), ..asked.clone() }).unwrap();
    assert_eq!((halved.plan.context.context_tokens, halved.plan.context.kv), (1024, KvType::Q8_0));
    let no_less = PlanRequest { least_context_tokens: Some(2048), ..asked.clone() };
    assert!(matches!(settled(&shape, &no_less), Err(SettleError::Plan(_))));
    let nothing = PlanRequest { pools: Pools::host(0), least_context_tokens: Some(0), ..asked };
    assert!(matches!(settled(&shape, &nothing), Err(SettleError::Plan(_))), "it ends");
}

#[test]
fn sequences_that_only_remember_get_a_fiftieth_and_never_stand_in_the_way() {
    let shape = model(Shape::TinyLlama);
    let layout = ExpertLayout::new(&shape);
    let each = shape.total_bytes() / 200;
    // Each sequence has memory of its own, as with recurrent state.
    let needs = |context: &ContextShape, _: &Homes| {
        let sequences = u64::from(context.sequences + context.idle_sequences);
        Ok::<_, ()>(Ledger::new().with_host(Purpose::Kv, sequences * each, Basis::Measured))
    };
    let asked = PlanRequest {
        residency: Residency::Resident,
        ..request(ContextShape { idle_sequences: 100, ..of_tokens(64) })
    };
    let idle = |pools| {
        let settled = settle(&shape, &layout, &PlanRequest { pools, ..asked.clone() }, needs).unwrap();
        settled.plan.context.idle_sequences
    };
    assert_eq!(idle(Pools::host(u64::MAX)), 4);
    assert_eq!(idle(Pools::host(shape.total_bytes() + each)), 0, "there is room for one that runs");
}

#[test]
fn needs_that_are_not_known_are_the_error_and_no_plan_is_tried() {
    let shape = model(Shape::TinyLlama);
    let unknown = settle(&shape, &ExpertLayout::new(&shape), &PlanRequest::default(), |_, _| Err("broken"));
    assert_eq!(unknown.unwrap_err(), SettleError::Needs("broken"));
}

fn on_devices(plan: &Plan) -> usize {
    plan.homes.layers.iter().filter(|home| home.dense != PoolId::HOST).count()
}

/// What a context needs where layers are at home: KV by layer, compute buffers there and on the host.
fn needs_by_home(shape: &ModelShape, context: &ContextShape, homes: &Homes, pools: &Pools) -> Ledger {
    let estimated = estimate_needs(shape, context).unwrap();
    let mut needs =
        Ledger::new().with_host(Purpose::Process, estimated.bytes_for(Purpose::Process), Basis::Estimated);
    let layers = homes.layers.len().max(1) as u64;
    for home in &homes.layers {
        let bytes = estimated.bytes_for(Purpose::Kv) / layers;
        needs.add(Entry { pool: home.dense, purpose: Purpose::Kv, bytes, basis: Basis::Measured });
    }
    let used = |pool| homes.output == pool || homes.layers.iter().any(|home| home.dense == pool);
    for (pool, _) in pools.iter().filter(|(pool, _)| *pool == PoolId::HOST || used(*pool)) {
        let bytes = estimated.bytes_for(Purpose::Compute);
        needs.add(Entry { pool, purpose: Purpose::Compute, bytes, basis: Basis::Measured });
    }
    needs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(60)))]

    #[test]
    fn no_pool_is_filled_beyond_its_budget_and_a_larger_device_takes_no_fewer_layers(
        shape in prop::sample::select(vec![Shape::TinyMixtral, Shape::TinyKimiK2, Shape::TinyLlama, Shape::TinyQwen2]),
        layers in 2..10_u32, host in 0.3..2.0_f64, device in 0.0..1.5_f64, more in 1.0..2.0_f64,
    ) {
        let shape = model_of_layers(shape, layers);
        let layout = ExpertLayout::new(&shape);
        let context = ContextShape { ubatch_tokens: 32, ..of_tokens(256) };
        let fixed = floor(&shape, context);
        let bytes = |part: f64| ((shape.total_bytes() + fixed) as f64 * part) as u64;
        let plan = |device: f64| {
            let pools = Pools::host(bytes(host)).with_device(bytes(device));
            let asked = PlanRequest { pools: pools.clone(), ..request(context) };
            let settled = settle(&shape, &layout, &asked, |context, homes| {
                Ok::<_, ()>(needs_by_home(&shape, context, homes, &pools))
            });
            settled.map(|settled| (settled.plan, pools))
        };
        let mut before = None;
        for device in [device, device * more] {
            match plan(device) {
                Ok((plan, pools)) => {
                    prop_assert_eq!(plan.ledger.exceeded(&pools), None);
                    prop_assert!(before.is_none_or(|before| on_devices(&plan) >= before));
                    before = Some(on_devices(&plan));
                }
                Err(SettleError::Plan(PlanError::BelowFloor { .. })) => prop_assert_eq!(before, None),
                Err(error) => prop_assert!(false, "{:?}", error),
            }
        }
    }
}

#[test]
fn a_device_gets_the_whole_model_or_dense_weights_and_experts_stay_where_they_stream() {
    let shape = model(Shape::Qwen3_30bA3b);
    let layout = ExpertLayout::new(&shape);
    let context = of_tokens(4096);
    let plan = |device: u64, residency| {
        let pools = Pools::host(8 << 30).with_device(device);
        let asked = PlanRequest { pools: pools.clone(), residency, ..request(context) };
        settle(&shape, &layout, &asked, |context, homes| {
            Ok::<_, ()>(needs_by_home(&shape, context, homes, &pools))
        })
        .unwrap()
        .plan
    };
    let whole = plan(40 << 30, Residency::Auto);
    assert!(whole.experts.is_none() && whole.homes.layers.iter().all(|home| home.experts != PoolId::HOST));
    for plan in [plan(40 << 30, Residency::Stream), plan(4 << 30, Residency::Auto)] {
        assert_eq!(on_devices(&plan), shape.layers as usize, "all dense weights fit");
        assert!(plan.experts.is_some() && plan.homes.layers.iter().all(|home| home.experts == PoolId::HOST));
    }
    let part = plan(1 << 30, Residency::Auto);
    assert!((1..shape.layers as usize).contains(&on_devices(&part)), "{}", on_devices(&part));
    assert_eq!(on_devices(&plan(1 << 20, Residency::Auto)), 0, "not even the compute buffers fit");
}

/// A GPU two hundred times as fast as the processor, behind a link of 20 GB/s.
fn fixed_gpu() -> GpuRates {
    GpuRates {
        device: "CUDA0".to_owned(),
        matmul: plan_common::matmul(2e12, 1e14),
        overhead: Overhead { node_s: Some(2e-6), call_s: Some(2e-5), wake_s: None },
        upload_bytes_per_s: Some(2e10),
        ..GpuRates::default()
    }
}

#[test]
fn a_plan_with_a_gpu_predicts_at_its_rates_or_says_that_nobody_measured_them() {
    let shape = model(Shape::Qwen3_30bA3b);
    let layout = ExpertLayout::new(&shape);
    let context = of_tokens(4096);
    let speed = |device: u64, experts: ExpertHome, gpu: Option<GpuRates>| {
        let pools = Pools::host(24 << 30).with_device(device);
        let asked = PlanRequest { pools: pools.clone(), experts, ..request(context) };
        let settled = settle(&shape, &layout, &asked, |context, homes| {
            Ok::<_, ()>(needs_by_home(&shape, context, homes, &pools))
        });
        let plan = settled.unwrap().plan;
        let profile = Profile { gpu, ..plan_common::fixed_machine(2e9) };
        let (layout, workload) = (&layout, Workload::default());
        let told = predict(&CostInput { shape: &shape, layout, plan: &plan, profile: &profile, workload });
        told.decode.map(|decode| decode.tokens_per_s.mid).ok_or(told.missing)
    };
    let unknown = speed(40 << 30, ExpertHome::Auto, None).unwrap_err();
    assert_eq!(unknown, ["the speed of the GPU"]);
    let host = speed(0, ExpertHome::Auto, None).unwrap();
    let hybrid = speed(4 << 30, ExpertHome::Host, Some(fixed_gpu())).unwrap();
    let slots = |vram: u64| speed(vram << 30, ExpertHome::Device, Some(fixed_gpu())).unwrap();
    let (few, many) = (slots(4), slots(9));
    let whole = speed(40 << 30, ExpertHome::Auto, Some(fixed_gpu())).unwrap();
    let rising = [host, hybrid, few, many, whole];
    assert!(rising.is_sorted_by(|slower, faster| slower < faster), "{rising:?}");
}

//! What must hold for every plan and every prediction, on models and machines of many forms.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod plan_common;

use hypura_core::model::{ModelShape, Streaming};
use hypura_core::plan::{
    Basis, CacheSize, Constraints, ContextShape, ExpertLayout, Ledger, Mode, PAGE, Plan, PlanError, Purpose,
    Question, Residency, Routing, SMALL_UBATCH, StreamedTable, TablePlan, TierTable, WhatIf, Workload,
    choose_ubatch, estimate_needs, fill, pages_of_row,
};
use hypura_core::profile::Profile;
use hypura_core::synth::Shape;
use plan_common::{cases, machine, model, model_of_at_least, model_of_layers};
use proptest::prelude::*;

fn needs() -> Ledger {
    Ledger::new()
        .with_host(Purpose::Kv, 300_000, Basis::Measured)
        .with_host(Purpose::Compute, 500_000, Basis::Measured)
        .with_host(Purpose::Process, 100_000, Basis::Estimated)
}

fn within(shape: &ModelShape, budget_bytes: u64, residency: Residency) -> Constraints {
    let constraints = Constraints::on_host(shape, ContextShape::default(), budget_bytes, needs());
    Constraints { residency, ..constraints }
}

fn tiny() -> impl Strategy<Value = ModelShape> {
    let shapes: Vec<Shape> =
        Shape::ALL.iter().copied().filter(|shape| shape.name().starts_with("tiny-")).collect();
    (prop::sample::select(shapes), 2..12_u32).prop_map(|(shape, layers)| model_of_at_least(shape, layers))
}

fn residency() -> impl Strategy<Value = Residency> {
    prop::sample::select(vec![Residency::Auto, Residency::Stream])
}

fn speeds(
    shape: &ModelShape,
    profile: &Profile,
    constraints: &Constraints,
    workload: Workload,
) -> Option<(Plan, [f64; 3])> {
    let layout = ExpertLayout::new(shape);
    let question = Question { shape, layout: &layout, profile, constraints, workload };
    let (plan, prediction) = question.answer().ok()?;
    assert!(prediction.missing.is_empty(), "{:?}", prediction.missing);
    let (decode, prefill) = (prediction.decode.unwrap(), prediction.prefill.unwrap());
    for estimate in [decode.tokens_per_s, prefill.tokens_per_s, prediction.load_s.unwrap()] {
        assert!(estimate.low > 0.0 && estimate.high.is_finite(), "{estimate:?}");
        assert!(estimate.low <= estimate.mid && estimate.mid <= estimate.high, "{estimate:?}");
    }
    assert!(decode.tokens_per_s.mid <= decode.roofline_tokens_per_s * 1.000_001, "{decode:?}");
    Some((plan, [decode.tokens_per_s.mid, decode.tokens_per_s.low, prefill.tokens_per_s.mid]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(200)))]

    #[test]
    fn no_plan_exceeds_its_budget_and_the_floor_is_true(
        shape in tiny(), part in 0.0..1.3_f64, residency in residency(), percent in prop::option::of(0.0..100.0_f64),
    ) {
        let layout = ExpertLayout::new(&shape);
        let budget = ((shape.total_bytes() + 900_000) as f64 * part) as u64;
        let constraints =
            Constraints { cache: percent.map(CacheSize::Percent), ..within(&shape, budget, residency) };
        match fill(&shape, &layout, &constraints) {
            Ok(plan) => {
                prop_assert!(plan.total_bytes() <= budget);
                prop_assert!(plan.floor_bytes <= budget);
                let table = TierTable::new(&shape, &layout, &plan);
                let total = table.total();
                prop_assert_eq!(total.total_bytes(), shape.total_bytes());
                prop_assert_eq!(total.resident_bytes, plan.resident_bytes());
                let layers: u64 = table.layers.iter().map(|layer| layer.total_bytes()).sum();
                prop_assert_eq!(layers + table.outside.total_bytes(), shape.total_bytes());
                prop_assert!(total.cached_bytes <= total.streamed_bytes);
                let fraction = plan.cached_fraction(&shape, &layout);
                prop_assert!((0.0..=1.0).contains(&fraction), "{}", fraction);
            }
            Err(PlanError::BelowFloor { floor_bytes, .. }) => {
                prop_assert!(floor_bytes > budget);
                let enough = constraints.with_host_budget(floor_bytes);
                prop_assert!(fill(&shape, &layout, &enough).is_ok());
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn more_memory_never_predicts_slower(
        shape in tiny(), profile in machine(), residency in residency(), ubatch in 1..600_u32,
        parts in prop::collection::vec(0.05..1.3_f64, 2..12),
    ) {
        let workload = Workload { ubatch_tokens: ubatch, ..Workload::default() };
        let mut budgets: Vec<u64> =
            parts.iter().map(|part| ((shape.total_bytes() + 900_000) as f64 * part) as u64).collect();
        budgets.sort_unstable();
        let mut last: Option<(u64, Plan, [f64; 3])> = None;
        for budget in budgets {
            let Some((plan, now)) = speeds(&shape, &profile, &within(&shape, budget, residency), workload) else {
                prop_assert!(last.is_none(), "a larger budget has no plan");
                continue;
            };
            if let Some((less, less_plan, before)) = &last {
                for (now, before) in now.iter().zip(before) {
                    prop_assert!(
                        *now >= before * (1.0 - 1e-9),
                        "{less} → {budget}: {before} → {now}\n{less_plan:?}\n{plan:?}"
                    );
                }
            }
            last = Some((budget, plan, now));
        }
    }

    #[test]
    fn a_faster_disk_never_predicts_slower(
        shape in tiny(), profile in machine(), part in 0.3..1.0_f64, factor in 1.0..20.0_f64,
    ) {
        let budget = ((shape.total_bytes() + 900_000) as f64 * part) as u64;
        let best = profile.storage.as_ref().unwrap().reads.iter().filter_map(|r| r.bytes_per_s).fold(0.0, f64::max);
        let what_if = WhatIf { disk_bytes_per_s: Some(best * factor), ..WhatIf::default() };
        let constraints = within(&shape, budget, Residency::Auto);
        let Some((_, slow)) = speeds(&shape, &profile, &constraints, Workload::default()) else { return Ok(()) };
        let (_, fast) = speeds(&shape, &what_if.apply(&profile), &constraints, Workload::default()).unwrap();
        for (fast, slow) in fast.iter().zip(&slow) {
            prop_assert!(*fast >= slow * (1.0 - 1e-9));
        }
    }

    #[test]
    fn dense_weights_stream_evenly(part in 0.35..0.95_f64, layers in 8..24_u32) {
        let shape = model_of_layers(Shape::TinyLlama, layers);
        let layout = ExpertLayout::new(&shape);
        let budget = ((shape.total_bytes() + 900_000) as f64 * part) as u64;
        let Ok(plan) = fill(&shape, &layout, &within(&shape, budget, Residency::Stream)) else { return Ok(()) };
        prop_assert_eq!(plan.mode(), Mode::DenseStreaming);
        let table = TierTable::new(&shape, &layout, &plan);
        // Any run of layers has its share of the streamed bytes, give or take three weights at each end.
        let (total, largest) = (table.total(), plan.dense.as_ref().unwrap().cell_bytes as f64);
        let of_layers: u64 = table.layers.iter().map(|layer| layer.total_bytes()).sum();
        for start in 0..table.layers.len() {
            let (mut streamed, mut all) = (0, 0);
            for layer in &table.layers[start..] {
                streamed += layer.streamed_bytes;
                all += layer.total_bytes();
                let share = total.streamed_bytes as f64 * all as f64 / of_layers as f64;
                prop_assert!((streamed as f64 - share).abs() <= 6.0 * largest, "{}+: {} {}", start, streamed, share);
            }
        }
    }
}

#[test]
fn what_was_not_measured_is_named_and_its_prediction_absent() {
    let shape = model(Shape::TinyMixtral);
    let layout = ExpertLayout::new(&shape);
    let profile = Profile::default();
    let constraints = within(&shape, shape.total_bytes(), Residency::Stream);
    let question = Question {
        shape: &shape,
        layout: &layout,
        profile: &profile,
        constraints: &constraints,
        workload: Workload::default(),
    };
    let (_, prediction) = question.answer().unwrap();
    assert!(prediction.load_s.is_none() && prediction.decode.is_none() && prediction.prefill.is_none());
    assert_eq!(prediction.missing, ["the speed of the disk", "the speed of the processor"]);
}

#[test]
fn a_resident_model_needs_no_disk_to_decode() {
    let shape = model(Shape::TinyMixtral);
    let layout = ExpertLayout::new(&shape);
    let mut profile = plan_common::fixed_machine(2e9);
    profile.storage = None;
    let question = Question {
        shape: &shape,
        layout: &layout,
        profile: &profile,
        constraints: &within(&shape, u64::MAX, Residency::Auto),
        workload: Workload::default(),
    };
    let (plan, prediction) = question.answer().unwrap();
    assert_eq!(plan.mode(), Mode::FullResident);
    assert!(prediction.load_s.is_none() && prediction.decode.is_some() && prediction.prefill.is_some());
}

#[test]
fn an_expert_model_on_a_slow_disk_is_bound_by_it_and_near_its_roofline() {
    let shape = model(Shape::Mixtral8x7b);
    let layout = ExpertLayout::new(&shape);
    let profile = plan_common::fixed_machine(2e9);
    let budget_bytes = 20 << 30;
    let workload = Workload { routing: Routing::Known(0.558), ..Workload::default() };
    let question = Question {
        shape: &shape,
        layout: &layout,
        profile: &profile,
        constraints: &within(&shape, budget_bytes, Residency::Auto),
        workload,
    };
    let (plan, prediction) = question.answer().unwrap();
    let decode = prediction.decode.unwrap();
    assert_eq!((plan.mode(), decode.bound.name()), (Mode::ExpertStreaming, "disk"));
    // 44.2% of two experts of 32 layers, and a row of the embedding.
    let expected = shape.routed_bytes_per_token() as f64 * (1.0 - 0.558) + row_bytes(&shape, &plan);
    assert!((decode.read_bytes / expected - 1.0).abs() < 1e-9);
    assert!(decode.roofline_tokens_per_s >= decode.tokens_per_s.mid);
    // With a known hit rate, memory that does not hold everything changes nothing.
    let gains: Vec<f64> =
        question.alternatives(&prediction).iter().map(|other| other.gain_tokens_per_s.unwrap()).collect();
    assert_eq!(gains.len(), 4);
    assert!(gains[0] == 0.0 && gains[1..].iter().all(|gain| *gain > 0.0), "{gains:?}");
}

/// Bytes that a token reads of tables.
fn row_bytes(shape: &ModelShape, plan: &Plan) -> f64 {
    let of_table = |table: &StreamedTable| {
        let offset = shape.tensors[table.weight].info.offset;
        pages_of_row(offset, table.row_bytes) * f64::from(table.rows_per_token)
    };
    plan.streamed_tables().iter().map(of_table).sum::<f64>() * PAGE as f64
}

/// The budgets from the least to where nothing of the dense weights streams, in `steps` steps.
fn mixed_budgets(shape: &ModelShape, layout: &ExpertLayout, steps: u64) -> Vec<u64> {
    let least = fill(shape, layout, &within(shape, 0, Residency::Auto)).unwrap_err();
    let PlanError::BelowFloor { floor_bytes, .. } = least else { panic!("{least}") };
    let tables = fill(shape, layout, &within(shape, floor_bytes, Residency::Auto)).unwrap();
    let rows = tables.tables.as_ref().map_or(0, TablePlan::memory_bytes);
    let dense = shape.total_bytes() - shape.routed_bytes() - tables.streamed_table_bytes(shape);
    let whole = dense + rows + 900_000 + 2 * layout.cell_bytes as u64;
    assert!(floor_bytes < whole, "{floor_bytes} {whole}");
    (0..steps).map(|step| floor_bytes + (whole - floor_bytes) * step / steps).collect()
}

#[test]
fn dense_weights_that_do_not_fit_stream_as_much_as_they_must_and_experts_have_cells() {
    for shape in [Shape::Mixtral8x7b, Shape::Qwen3_30bA3b, Shape::KimiK2, Shape::GptOss120b] {
        let model = model(shape);
        let layout = ExpertLayout::new(&model);
        let dense = model.total_bytes() - model.routed_bytes();
        let mut streamed_before = u64::MAX;
        for budget in mixed_budgets(&model, &layout, 20) {
            let plan = fill(&model, &layout, &within(&model, budget, Residency::Auto)).unwrap();
            assert_eq!(plan.mode(), Mode::MixedStreaming, "{shape} {budget}");
            let streamed = plan.streamed_dense_bytes(&model);
            assert_eq!(plan.resident_bytes(), dense - streamed - plan.streamed_table_bytes(&model));
            let (experts, ring) = (plan.experts.as_ref().unwrap(), plan.dense.as_ref().unwrap());
            assert!(streamed <= streamed_before && experts.cells >= 2 && ring.cells >= 2, "{plan:?}");
            // What is left over is less than cells (a share of it) and one weight could use.
            let idle = budget - plan.total_bytes();
            assert!(idle <= (experts.cell_bytes + ring.cell_bytes) as u64, "{shape} {budget}: {idle} idle");
            streamed_before = streamed;
        }
    }
}

#[test]
fn norms_and_small_tensors_never_stream() {
    for &shape in Shape::ALL {
        let model = model(shape);
        let layout = ExpertLayout::new(&model);
        let Err(PlanError::BelowFloor { floor_bytes, .. }) =
            fill(&model, &layout, &within(&model, 0, Residency::Auto))
        else {
            panic!("{shape} works in nothing")
        };
        let plan = fill(&model, &layout, &within(&model, floor_bytes, Residency::Auto)).unwrap();
        assert!(!plan.streamed_dense().is_empty(), "{shape}");
        for index in plan.streamed_dense() {
            let tensor = &model.tensors[*index];
            assert!(tensor.info.bytes >= 16 << 10 && tensor.info.shape.len() == 2, "{tensor:?}");
            assert_eq!(tensor.streaming, Streaming::Whole, "{tensor:?}");
        }
    }
}

#[test]
fn both_streams_share_the_disk() {
    let shape = model(Shape::KimiK2);
    let layout = ExpertLayout::new(&shape);
    let profile = plan_common::fixed_machine(2e9);
    let budgets = mixed_budgets(&shape, &layout, 3);
    let workload = Workload { routing: Routing::Uniform, ..Workload::default() };
    for budget in budgets {
        let constraints = &within(&shape, budget, Residency::Auto);
        let question = Question { shape: &shape, layout: &layout, profile: &profile, constraints, workload };
        let (plan, prediction) = question.answer().unwrap();
        let decode = prediction.decode.unwrap();
        // No slots: every token reads its experts and what streams of the dense weights.
        let bytes = (shape.routed_bytes_per_token() + plan.streamed_dense_bytes(&shape)) as f64;
        let bytes = bytes + row_bytes(&shape, &plan);
        assert!((decode.read_bytes / bytes - 1.0).abs() < 1e-9, "{} {bytes}", decode.read_bytes);
        let least_s = bytes / 2e9 * (1.0 - 1e-9);
        assert!(1.0 / decode.tokens_per_s.mid >= least_s && decode.read_s >= least_s, "{decode:?}");
        let table = TierTable::new(&shape, &layout, &plan);
        let tables = plan.streamed_table_bytes(&shape);
        let streamed = shape.routed_bytes() + plan.streamed_dense_bytes(&shape) + tables;
        assert_eq!(table.total().streamed_bytes, streamed);
    }
}

#[test]
fn streamable_weights_exist_in_every_shape() {
    for &shape in Shape::ALL {
        let model = model(shape);
        assert!(!model.is_dense() || model.tensors.iter().any(|tensor| tensor.streaming == Streaming::Whole));
    }
}

/// A context of 8192 tokens, ubatches of 512 unless more are chosen, and nothing known yet of what it needs.
fn asked(shape: &ModelShape, budget_bytes: u64) -> Constraints {
    let context = ContextShape { context_tokens: 8192, ..ContextShape::default() };
    Constraints::on_host(shape, context, budget_bytes, Ledger::new())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(100)))]

    #[test]
    fn a_larger_ubatch_never_costs_the_plan_more_than_its_share(shape in tiny(), part in 0.2..3.0_f64) {
        let layout = ExpertLayout::new(&shape);
        let constraints = asked(&shape, (shape.total_bytes() as f64 * part) as u64 + 60_000_000);
        let chosen = choose_ubatch(&shape, &layout, &constraints);
        prop_assert!((SMALL_UBATCH..=4096).contains(&chosen), "{}", chosen);
        let planned = |ubatch_tokens| {
            let needs = estimate_needs(&shape, &ContextShape { ubatch_tokens, ..constraints.context }).unwrap();
            fill(&shape, &layout, &Constraints { needs, ..constraints.clone() })
        };
        match planned(SMALL_UBATCH) {
            Ok(small) if small.mode() != Mode::FullResident => {
                let large = planned(chosen).unwrap();
                prop_assert_eq!(large.mode(), small.mode());
                let (large, small) = (large.slot_bytes(), small.slot_bytes());
                prop_assert!(large + small / 32 >= small, "{} {}", large, small);
            }
            _ => prop_assert_eq!(chosen, SMALL_UBATCH, "nothing streams"),
        }
    }
}

#[test]
fn the_ubatch_grows_with_the_cache() {
    let shape = model(Shape::Qwen3_30bA3b);
    let layout = ExpertLayout::new(&shape);
    let chosen = |gib: u64| choose_ubatch(&shape, &layout, &asked(&shape, gib << 30));
    let sizes: Vec<u32> = [4, 6, 10, 14].map(chosen).to_vec();
    assert!(sizes.is_sorted() && sizes[0] < sizes[3], "{sizes:?}");
    assert_eq!(chosen(24), SMALL_UBATCH, "everything fits");
    let mut short = asked(&shape, 14 << 30);
    short.context.context_tokens = 1000;
    assert!(choose_ubatch(&shape, &layout, &short) <= 1000);
}

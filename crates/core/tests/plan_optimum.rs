//! The planner's choice of what is in memory against the optimum that an integer programme finds, on models
//! that are small enough for one.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod plan_common;

use good_lp::{
    Constraint, Expression, ProblemVariables, Solution, SolverModel, Variable, constraint, microlp, variable,
    variables,
};
use hypura_core::gguf::GgmlType;
use hypura_core::model::ModelShape;
use hypura_core::plan::{Constraints, ContextShape, ExpertLayout, Ledger, Mode, Residency, Routing, fill};
use hypura_core::synth::{Quant, Shape};
use plan_common::{model_of_layers, model_of_quant};

fn within(shape: &ModelShape, budget_bytes: u64) -> Constraints {
    let constraints = Constraints::on_host(shape, ContextShape::default(), budget_bytes, Ledger::new());
    Constraints { residency: Residency::Stream, ..constraints }
}

/// Bytes a token that hits save in a class of experts with this many slots.
fn saved(shape: &ModelShape, layout: &ExpertLayout, class: usize, slots: u64, routing: Routing) -> f64 {
    let of_class = layout.layers.iter().filter(|layer| layer.class == class);
    of_class
        .map(|layer| {
            let model = shape.expert_layer(layer.layer).unwrap();
            let fraction = slots as f64 / layout.classes[class].experts as f64;
            let hit = routing.hit_rate(fraction, f64::from(layer.used) / f64::from(layer.experts)).mid;
            hit * f64::from(layer.used) * model.expert_bytes() as f64
        })
        .sum()
}

/// What can be saved at most with `room` bytes for experts and for weights that every token passes, and how
/// much of the latter is then in memory. Each class has one binary variable for each number of slots.
fn optimum(
    shape: &ModelShape,
    layout: &ExpertLayout,
    room: u64,
    always: u64,
    routing: Routing,
) -> (f64, f64) {
    let mut vars: ProblemVariables = variables!();
    let dense = vars.add(variable().min(0.0).max(always as f64));
    let mut objective: Expression = dense.into();
    let mut cost: Expression = dense.into();
    let mut constraints: Vec<Constraint> = Vec::new();
    for (index, class) in layout.classes.iter().enumerate() {
        let choices: Vec<Variable> = (0..=class.experts).map(|_| vars.add(variable().binary())).collect();
        constraints.push(constraint!(choices.iter().sum::<Expression>() == 1.0));
        for (slots, chosen) in (0..).zip(choices) {
            objective += saved(shape, layout, index, slots, routing) * chosen;
            cost += (slots * class.slot_bytes as u64) as f64 * chosen;
        }
    }
    constraints.push(constraint!(cost <= room as f64));
    let model = vars.maximise(objective.clone()).using(microlp);
    let solution = constraints.into_iter().fold(model, SolverModel::with).solve().unwrap();
    (solution.eval(objective), solution.value(dense))
}

#[test]
fn experts_of_several_sizes_share_memory_as_well_as_any_division_could() {
    for shape in [Shape::TinyMixtral, Shape::TinyQwen3Moe] {
        let shape = model_of_quant(shape, Quant::Q4_K_M, 4);
        let layout = ExpertLayout::new(&shape);
        assert!(layout.classes.len() > 1, "the fixture must have classes to choose between");
        let least = fill(&shape, &layout, &within(&shape, 0)).unwrap_err();
        let hypura_core::plan::PlanError::BelowFloor { floor_bytes, .. } = least else { panic!("{least}") };
        let always = shape.total_bytes() - shape.routed_bytes();
        for eighths in 0..8 {
            let budget = floor_bytes + layout.total_bytes() * eighths / 8;
            let plan = fill(&shape, &layout, &within(&shape, budget)).unwrap();
            assert_eq!(
                plan.mode() == Mode::MixedStreaming,
                eighths == 0,
                "the least streams everything it can"
            );
            for routing in [Routing::Uniform, Routing::Traced] {
                let dense = always - plan.streamed_dense_bytes(&shape);
                let (best, best_dense) = optimum(&shape, &layout, dense + plan.slot_bytes(), always, routing);
                // Slots are whole: the optimum may give up a little of the dense weights for one more of
                // them.
                let most_slot = layout.classes.iter().map(|class| class.slot_bytes).max().unwrap() as f64;
                assert!(best_dense > dense as f64 - most_slot, "what every token passes comes first");
                let ours: f64 = plan
                    .slots(&layout)
                    .into_iter()
                    .enumerate()
                    .map(|(class, slots)| saved(&shape, &layout, class, u64::from(slots), routing))
                    .sum();
                // Slots are whole: one in each class may be missing.
                let slot: f64 = (0..layout.classes.len())
                    .map(|class| saved(&shape, &layout, class, 1, routing))
                    .fold(0.0, f64::max);
                let short = best - dense as f64 - ours;
                let most = slot * layout.classes.len() as f64;
                assert!(short <= most * 1.000_001, "{eighths}/8 {routing:?}: {short} {most}");
                assert!(short >= -1.0, "the optimum is no optimum: {short}");
            }
        }
    }
}

/// Least bytes of whole weights that are at least `need` together, by the number of weights of each size.
fn least_streamed(sizes: &[u64], need: u64) -> f64 {
    let mut distinct = sizes.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let mut vars: ProblemVariables = variables!();
    let mut bytes = Expression::from(0.0);
    for size in distinct {
        let count = sizes.iter().filter(|other| **other == size).count();
        bytes += size as f64 * vars.add(variable().integer().min(0.0).max(count as f64));
    }
    let model = vars.minimise(bytes.clone()).using(microlp);
    let solution = model.with(constraint!(bytes.clone() >= need as f64)).solve().unwrap();
    solution.eval(bytes)
}

#[test]
fn dense_weights_stream_no_more_than_they_must_but_for_one_weight() {
    let shape = model_of_layers(Shape::TinyLlama, 6);
    let layout = ExpertLayout::new(&shape);
    let ffn: Vec<u64> = shape
        .tensors
        .iter()
        .filter(|tensor| matches!(tensor.role, hypura_core::model::TensorRole::DenseFfn(_)))
        .filter(|tensor| tensor.info.ty != GgmlType::F32)
        .map(|tensor| tensor.info.bytes)
        .collect();
    let ffn_bytes: u64 = ffn.iter().sum();
    let whole = fill(&shape, &layout, &within(&shape, u64::MAX)).unwrap();
    assert_eq!((whole.mode(), whole.streamed_dense().len()), (Mode::DenseStreaming, 0));
    let all = whole.total_bytes();
    for need in (0..=16).map(|part| ffn_bytes * part / 16) {
        let plan = fill(&shape, &layout, &within(&shape, all - need)).unwrap();
        let streamed =
            plan.streamed_dense().iter().map(|index| shape.tensors[*index].info.bytes).sum::<u64>();
        let best = least_streamed(&ffn, need);
        assert!(streamed as f64 >= best, "{need}: {streamed} {best}");
        assert!(streamed as f64 - best < *ffn.iter().max().unwrap() as f64, "{need}: {streamed} {best}");
    }
}

//! Tables that stream by the row: when they do, and what the memory that they give back is used for.

mod plan_common;

use hypura_core::model::{ModelShape, Streaming};
use hypura_core::plan::{
    Basis, Constraints, ContextShape, ExpertLayout, Ledger, Mode, Plan, PlanError, Purpose, Residency,
    TablePlan, fill,
};
use hypura_core::synth::Shape;
use plan_common::model;

const NEEDS: u64 = 500_000_000;

fn constraints(shape: &ModelShape, budget: u64) -> Constraints {
    let needs = Ledger::new().with_host(Purpose::Process, NEEDS, Basis::Estimated);
    Constraints::on_host(shape, ContextShape::default(), budget, needs)
}

fn planned(shape: &ModelShape, budget: u64, tables: Residency) -> Result<Plan, PlanError> {
    fill(shape, &ExpertLayout::new(shape), &Constraints { tables, ..constraints(shape, budget) })
}

#[test]
fn a_table_is_resident_where_everything_fits_and_streams_where_it_alone_is_in_the_way() {
    for shape in [Shape::Qwen3_30bA3b, Shape::Llama70b, Shape::GptOss120b] {
        let model = model(shape);
        let whole = model.total_bytes() + NEEDS;
        assert_eq!(planned(&model, whole, Residency::Auto).unwrap().mode(), Mode::FullResident);
        let plan = planned(&model, whole - 1, Residency::Auto).unwrap();
        assert_eq!(plan.mode(), Mode::TableStreaming, "{shape}");
        let table = plan.streamed_table_bytes(&model);
        assert_eq!(plan.resident_bytes() + table, model.total_bytes());
        assert!(plan.ledger.bytes_for(Purpose::Rows) < table / 4 && plan.total_bytes() < whole);
        let resident = planned(&model, whole - 1, Residency::Resident).unwrap();
        assert!(resident.tables.is_none() && resident.mode() != Mode::TableStreaming, "{shape}");
    }
}

#[test]
fn what_a_table_gives_back_becomes_slots() {
    let model = model(Shape::Qwen3_30bA3b);
    let budget = model.total_bytes() / 2;
    let (streams, stays) = (
        planned(&model, budget, Residency::Auto).unwrap(),
        planned(&model, budget, Residency::Resident).unwrap(),
    );
    assert_eq!((streams.mode(), stays.mode()), (Mode::ExpertStreaming, Mode::ExpertStreaming));
    let memory = streams.tables.as_ref().map_or(0, TablePlan::memory_bytes);
    let gain = streams.streamed_table_bytes(&model) - memory;
    let slots = streams.slot_bytes() - stays.slot_bytes();
    let slot = ExpertLayout::new(&model).classes[0].slot_bytes as u64;
    assert!(slots > gain / 2 && slots <= gain + slot, "{slots} of {gain}");
    let floor = |tables| match planned(&model, 0, tables) {
        Err(PlanError::BelowFloor { floor_bytes, .. }) => floor_bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(floor(Residency::Resident) - floor(Residency::Auto), gain);
    assert!(planned(&model, floor(Residency::Auto), Residency::Auto).is_ok());
}

#[test]
fn small_tables_stay_unless_they_are_asked_to_go() {
    let model = model(Shape::TinyLlama);
    let whole = model.total_bytes() + NEEDS;
    let streams = Constraints { residency: Residency::Stream, ..constraints(&model, 2 * whole) };
    let plan = fill(&model, &ExpertLayout::new(&model), &streams).unwrap();
    assert!(plan.tables.is_none() && plan.mode() == Mode::DenseStreaming);
    let asked = planned(&model, 2 * whole, Residency::Stream).unwrap();
    assert_eq!(asked.mode(), Mode::TableStreaming);
    assert!(asked.tables.is_some());
}

#[test]
fn an_embedding_that_is_the_projection_too_stays() {
    let mut model = model(Shape::Qwen3_30bA3b);
    let table = model.tensors.iter().find(|tensor| tensor.info.name == "token_embd.weight").unwrap();
    assert_eq!(table.streaming, Streaming::Rows(1));
    for tensor in &mut model.tensors {
        if matches!(tensor.streaming, Streaming::Rows(_)) {
            tensor.streaming = Streaming::No;
        }
    }
    assert!(planned(&model, model.total_bytes() / 2, Residency::Stream).unwrap().tables.is_none());
}

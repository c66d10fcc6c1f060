//! Plans in which a device computes dense weights that its memory does not hold.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod plan_common;

use hypura_core::model::ModelShape;
use hypura_core::plan::{
    CacheSize, Constraints, ContextShape, ExpertLayout, Homes, Ledger, Mode, Plan, PlanError, PlanRequest,
    PoolId, Pools, Purpose, TierTable, estimate_needs, fill, settle,
};
use hypura_core::synth::Shape;
use plan_common::{cases, model, model_of_layers};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn constraints(shape: &ModelShape, pools: Pools) -> Constraints {
    let homes = Homes::on_devices(shape, &pools, u32::MAX, false);
    let host = Constraints::on_host(shape, ContextShape::default(), 0, Ledger::new());
    Constraints { pools, homes: Homes { streamed_dense: PoolId::DEVICE, ..homes }, ..host }
}

fn planned(shape: &ModelShape, pools: Pools) -> Result<Plan, PlanError> {
    fill(shape, &ExpertLayout::new(shape), &constraints(shape, pools))
}

fn settled(shape: &ModelShape, pools: Pools, device_layers: Option<u32>) -> Plan {
    let request = PlanRequest { pools, device_layers, ..PlanRequest::default() };
    let layout = ExpertLayout::new(shape);
    settle(shape, &layout, &request, |context, _| estimate_needs(shape, context)).unwrap().plan
}

fn dense() -> impl Strategy<Value = ModelShape> {
    let shapes = vec![Shape::TinyLlama, Shape::TinyQwen2, Shape::TinyGemma3];
    (prop::sample::select(shapes), 2..10_u32).prop_map(|(shape, layers)| model_of_layers(shape, layers))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(200)))]

    #[test]
    fn every_weight_has_one_place_and_no_pool_has_more_than_its_budget(
        shape in dense(), host in 0.0..2.0_f64, device in 0.0..2.0_f64, is_unified in any::<bool>(),
        percent in prop::option::of(0.0..100.0_f64),
    ) {
        let bytes = |part: f64| (shape.total_bytes() as f64 * part) as u64;
        let pools = if is_unified {
            Pools::unified(bytes(device)).with_device(bytes(device))
        } else {
            Pools::host(bytes(host)).with_device(bytes(device))
        };
        let cache = percent.map(CacheSize::Percent);
        let constraints = Constraints { cache, ..constraints(&shape, pools.clone()) };
        let plan = match fill(&shape, &ExpertLayout::new(&shape), &constraints) {
            Ok(plan) => plan,
            Err(PlanError::DeviceTooSmall { needed_bytes, budget_bytes, .. }) => {
                prop_assert!(needed_bytes > budget_bytes);
                return Ok(());
            }
            Err(PlanError::BelowFloor { floor_bytes, budget_bytes, .. }) => {
                prop_assert!(floor_bytes > budget_bytes);
                return Ok(());
            }
            Err(error) => panic!("{error}"),
        };
        prop_assert_eq!(plan.mode(), Mode::DenseStreaming);
        prop_assert_eq!(plan.ledger.exceeded(&pools), None);
        prop_assert!(!is_unified || plan.total_bytes() <= bytes(device), "one memory was given out twice");
        prop_assert!(plan.kept_dense().iter().all(|index| plan.streamed_dense().contains(index)));
        prop_assert!(!is_unified || plan.kept_dense().is_empty() && plan.uploaded_dense_bytes(&shape) == 0);
        let tiers = TierTable::new(&shape, &ExpertLayout::new(&shape), &plan).total();
        prop_assert_eq!(tiers.total_bytes(), shape.total_bytes());
        prop_assert_eq!(tiers.streamed_bytes, plan.streamed_dense_bytes(&shape));
        prop_assert_eq!(tiers.device_bytes, plan.ledger.bytes(PoolId::DEVICE, Purpose::Weights));
        let sent = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(serde_json::from_str::<Plan>(&sent).unwrap(), plan);
    }

    #[test]
    fn more_memory_of_either_never_reads_more(
        shape in dense(), host in 0.3..2.0_f64, device in 0.3..2.0_f64, more in 0.0..0.5_f64,
    ) {
        let bytes = |part: f64| (shape.total_bytes() as f64 * part) as u64;
        let read = |host, device| {
            let plan = planned(&shape, Pools::host(bytes(host)).with_device(bytes(device))).ok()?;
            Some(plan.streamed_dense_bytes(&shape))
        };
        let Some(before) = read(host, device) else { return Ok(()) };
        prop_assert!(read(host + more, device).unwrap() <= before);
        // Which of the weights stream differs with the device's memory, and those that the host keeps are
        // whole: about as many.
        let largest = shape.tensors.iter().map(|tensor| tensor.info.bytes).max().unwrap();
        prop_assert!(read(host, device + more).unwrap() <= before + largest);
    }
}

#[test]
fn a_model_larger_than_both_memories_is_the_devices_and_fills_both() {
    let shape = model(Shape::Llama70b);
    let plan = settled(&shape, Pools::host(16 * GIB).with_device(16 * GIB), None);
    assert_eq!((plan.mode(), plan.homes.streamed_dense), (Mode::DenseStreaming, PoolId::DEVICE));
    for (id, pool) in plan.pools.iter() {
        let used = plan.ledger.pool_bytes(id) as f64 / pool.budget_bytes as f64;
        assert!((0.96..=1.0).contains(&used), "{used} of {id:?}: {:?}", plan.ledger);
    }
    let ring: u64 = plan.ledger.bytes_for(Purpose::Ring);
    assert!(ring < 3 * GIB, "{ring} bytes of rings");
    let read = plan.streamed_dense_bytes(&shape);
    assert!(read < shape.total_bytes() - 28 * GIB, "{read} bytes from the disk");
}

#[test]
fn what_both_memories_hold_together_is_the_processors_in_part_unless_all_layers_are_asked_for() {
    let shape = model(Shape::Llama70b);
    let pools = Pools::host(40 * GIB).with_device(16 * GIB);
    let plan = settled(&shape, pools.clone(), None);
    assert_eq!((plan.mode(), plan.homes.streamed_dense), (Mode::FullResident, PoolId::HOST));
    assert!((1..Homes::most_layers(&shape)).contains(&plan.homes.device_layers()));
    let asked = settled(&shape, pools, Some(u32::MAX));
    assert_eq!((asked.mode(), asked.homes.streamed_dense), (Mode::DenseStreaming, PoolId::DEVICE));
    assert_eq!(asked.streamed_dense_bytes(&shape), 0, "all comes from memory");
    assert!(asked.uploaded_dense_bytes(&shape) > 20 * GIB);
}

#[test]
fn residents_stay_with_whom_they_fit() {
    let shape = model(Shape::Llama70b);
    let pools = Pools::host(16 * GIB).with_device(60 * GIB);
    let plan = settled(&shape, pools, None);
    assert_eq!((plan.mode(), plan.homes.streamed_dense), (Mode::FullResident, PoolId::HOST));
}

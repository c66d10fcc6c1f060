//! Plans over several memories: what holds for each pool, whatever is at home there.

mod plan_common;

use hypura_core::model::{ModelShape, TensorRole};
use hypura_core::plan::{
    Basis, CacheSize, Constraints, ContextShape, Entry, ExpertLayout, Homes, Ledger, Mode, Plan, PlanError,
    PoolId, Pools, Purpose, Residency, fill,
};
use hypura_core::synth::Shape;
use plan_common::{cases, model, model_of_at_least, model_of_layers};
use proptest::prelude::*;

const KV_PER_LAYER: u64 = 20_000;

/// KV by layer where the layer is at home, compute buffers in every pool, the process on the host.
fn needs(homes: &Homes, pools: &Pools) -> Ledger {
    let mut needs = Ledger::new().with_host(Purpose::Process, 100_000, Basis::Estimated);
    for home in &homes.layers {
        let kv =
            Entry { pool: home.dense, purpose: Purpose::Kv, bytes: KV_PER_LAYER, basis: Basis::Measured };
        needs.add(kv);
    }
    for (pool, _) in pools.iter() {
        needs.add(Entry { pool, purpose: Purpose::Compute, bytes: 200_000, basis: Basis::Measured });
    }
    needs
}

fn constraints(shape: &ModelShape, pools: Pools, layers: u32, experts: bool) -> Constraints {
    let homes = Homes::on_devices(shape, &pools, layers, experts);
    let needs = needs(&homes, &pools);
    let host = Constraints::on_host(shape, ContextShape::default(), 0, Ledger::new());
    Constraints { pools, homes, needs, ..host }
}

fn tiny() -> impl Strategy<Value = ModelShape> {
    let shapes: Vec<Shape> =
        Shape::ALL.iter().copied().filter(|shape| shape.name().starts_with("tiny-")).collect();
    (prop::sample::select(shapes), 2..10_u32).prop_map(|(shape, layers)| model_of_at_least(shape, layers))
}

/// Every weight is in memory of one pool, or streams through the host's.
fn accounts_for_all_weights(shape: &ModelShape, plan: &Plan) -> bool {
    let experts = plan.experts.as_ref().map_or(0, |experts| experts.streamable_bytes);
    plan.resident_bytes() + experts + plan.streamed_dense_bytes(shape) == shape.total_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(200)))]

    #[test]
    fn no_pool_of_a_plan_exceeds_its_budget_and_floors_are_true(
        shape in tiny(), host in 0.0..1.3_f64, devices in prop::collection::vec(0.0..1.3_f64, 0..3),
        layers in 0..12_u32, experts in any::<bool>(), percent in prop::option::of(0.0..100.0_f64),
        residency in prop::sample::select(vec![Residency::Auto, Residency::Stream, Residency::Resident]),
    ) {
        let layout = ExpertLayout::new(&shape);
        let bytes = |part: f64| ((shape.total_bytes() + 900_000) as f64 * part) as u64;
        let pools = devices.iter().fold(Pools::host(bytes(host)), |pools, part| pools.with_device(bytes(*part)));
        // Experts go to devices all together or not at all.
        let experts = experts && layers >= Homes::most_layers(&shape);
        let constraints = Constraints {
            residency,
            cache: percent.map(CacheSize::Percent),
            ..constraints(&shape, pools.clone(), layers, experts)
        };
        match fill(&shape, &layout, &constraints) {
            Ok(plan) => {
                for (id, pool) in pools.iter() {
                    prop_assert!(plan.ledger.pool_bytes(id) <= pool.budget_bytes, "{:?}", plan);
                }
                let by_pool: u64 = pools.iter().map(|(id, _)| plan.ledger.pool_bytes(id)).sum();
                prop_assert_eq!(by_pool, plan.total_bytes());
                prop_assert!(plan.floor_bytes <= pools.host_budget_bytes());
                prop_assert!(accounts_for_all_weights(&shape, &plan), "{:?}", plan);
                for index in plan.streamed_dense() {
                    prop_assert_eq!(constraints.homes.of(&shape.tensors[*index]), PoolId::HOST);
                }
                let sent = serde_json::to_string(&plan).unwrap();
                prop_assert_eq!(serde_json::from_str::<Plan>(&sent).unwrap(), plan);
            }
            Err(PlanError::BelowFloor { floor_bytes, budget_bytes, .. }) => {
                prop_assert!(floor_bytes > budget_bytes);
                let enough = constraints.with_host_budget(floor_bytes);
                prop_assert!(fill(&shape, &layout, &enough).is_ok());
            }
            Err(PlanError::DeviceTooSmall { pool, needed_bytes, budget_bytes }) => {
                prop_assert!(pool != PoolId::HOST && needed_bytes > budget_bytes);
            }
            Err(PlanError::ResidentTooLarge { needed_bytes, budget_bytes }) => {
                prop_assert!(residency == Residency::Resident && needed_bytes > budget_bytes);
            }
            Err(error @ PlanError::NothingToStream) => {
                prop_assert!(constraints.homes.layers.iter().any(|home| home.dense != PoolId::HOST), "{}", error);
            }
        }
    }
}

#[test]
fn layers_on_a_device_leave_the_host_to_experts() {
    let shape = model(Shape::Qwen3_30bA3b);
    let layout = ExpertLayout::new(&shape);
    let pools = Pools::host(6 << 30).with_device(8 << 30);
    let alone = fill(&shape, &layout, &constraints(&shape, pools.clone(), 0, false)).unwrap();
    let hybrid = fill(&shape, &layout, &constraints(&shape, pools.clone(), 99, false)).unwrap();
    let device = pools.devices().next().unwrap().0;
    assert_eq!((alone.mode(), hybrid.mode()), (Mode::ExpertStreaming, Mode::ExpertStreaming));
    assert_eq!(alone.ledger.bytes(device, Purpose::Weights), 0);
    let moved = hybrid.ledger.bytes(device, Purpose::Weights);
    assert_eq!(hybrid.ledger.bytes(device, Purpose::Kv), u64::from(shape.layers) * KV_PER_LAYER);
    let table: u64 = shape
        .tensors
        .iter()
        .filter(|tensor| tensor.role == TensorRole::Embedding)
        .map(|tensor| tensor.info.bytes)
        .sum();
    assert_eq!(moved, shape.total_bytes() - shape.routed_bytes() - table, "all but the embedding table");
    let more = hybrid.slot_bytes() - alone.slot_bytes();
    assert!(more > moved / 2, "{more} bytes more of slots for {moved} of weights that left");
    assert_eq!(hybrid.experts.unwrap().slots[0].pool, PoolId::HOST);
}

#[test]
fn a_model_that_a_device_holds_needs_little_of_the_host() {
    let shape = model(Shape::Qwen3_30bA3b);
    let layout = ExpertLayout::new(&shape);
    let pools = Pools::host(1 << 30).with_device(40 << 30);
    let plan = fill(&shape, &layout, &constraints(&shape, pools, 99, true)).unwrap();
    assert_eq!(plan.mode(), Mode::FullResident);
    assert!(plan.ledger.pool_bytes(PoolId::HOST) < 1 << 30);
}

#[test]
fn a_device_that_is_too_small_is_named_with_what_it_needs() {
    let shape = model(Shape::TinyMixtral);
    let layout = ExpertLayout::new(&shape);
    let pools = Pools::host(u64::MAX).with_device(1000);
    let error = fill(&shape, &layout, &constraints(&shape, pools, 1, false)).unwrap_err();
    assert!(error.to_string().starts_with("device 1 needs "), "{error}");
}

#[test]
fn layers_are_divided_among_devices_by_their_budgets() {
    let shape = model_of_layers(Shape::TinyLlama, 9);
    let pools = Pools::host(0).with_device(1 << 20).with_device(2 << 20);
    let homes = Homes::on_devices(&shape, &pools, 7, true);
    let at: Vec<usize> = homes.layers.iter().map(|home| home.dense.index()).collect();
    assert_eq!(at, [0, 0, 0, 1, 1, 2, 2, 2, 2], "the last six, in order");
    assert_eq!(
        (homes.output.index(), homes.device_layers()),
        (2, 7),
        "the output is one more layer behind them"
    );
    let output = Homes::on_devices(&shape, &pools, 1, true);
    assert!(output.layers.iter().all(|home| home.dense == PoolId::HOST) && output.output.index() == 2);
    assert_eq!(Homes::on_devices(&shape, &pools, 99, true).device_layers(), 10);
    assert!(Homes::on_devices(&shape, &Pools::unified(0), 9, true).are_on_host());
}

#[test]
fn memory_that_host_and_device_share_is_planned_as_one() {
    let shape = model(Shape::TinyMixtral);
    let layout = ExpertLayout::new(&shape);
    let budget = shape.total_bytes();
    let plan = |pools| fill(&shape, &layout, &constraints(&shape, pools, shape.layers, false)).unwrap();
    let (host, unified) = (plan(Pools::host(budget)), plan(Pools::unified(budget)));
    assert_eq!((host.ledger, host.experts), (unified.ledger, unified.experts));
}

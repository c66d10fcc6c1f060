//! What the plan makes of too little memory, before anything is loaded; and that it is the same wherever it
//! is made.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod common;

use common::{demo_path, forced_run, least_bytes, session, settings, streaming, tiny};
use hypura_core::plan::{
    ContextShape, Homes, MediaNeeds, Purpose, Residency, WhatIf, Workload, estimate_needs,
};
use hypura_core::profile::Profile;
use hypura_core::synth::{Quant, Shape};
use hypura_engine::KvType;
use hypura_engine::advise::{AdviceSettings, advise};
use hypura_engine::load::{DeviceSettings, LoadSettings, NeedsMeter, prepare};
use hypura_engine::session::open;
use hypura_engine::source::ModelSource;
use std::path::Path;

#[test]
fn a_kv_cache_that_does_not_fit_is_taken_in_q8_0_and_that_is_said() {
    for (shape, quant) in [
        (Shape::TinyLlama, Quant::Q4_K),
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyKimiK2, Quant::Q4_K),
    ] {
        let model = tiny(shape, quant, 1);
        let forced = settings(Residency::Auto).with_context(2048).with_kv_may_shrink(false);
        let f16 = least_bytes(&model.path, &forced);
        let q8_0 = least_bytes(&model.path, &forced.clone().with_kv(KvType::Q8_0));
        assert!(q8_0 < f16, "{shape}: {q8_0} {f16}");
        let plan = |budget_bytes, kv_may_shrink| {
            let settings = forced.clone().with_budget_bytes(budget_bytes).with_kv_may_shrink(kv_may_shrink);
            prepare(ModelSource::open(&model.path).unwrap(), settings)
        };

        let roomy = plan(f16, true).unwrap();
        assert_eq!((roomy.plan.context.kv, roomy.notes.len()), (KvType::F16, 0), "f16 where it fits");

        let tight = plan(f16 - 1, true).unwrap();
        assert_eq!(tight.plan.context.kv, KvType::Q8_0, "{shape}");
        assert!(tight.notes[0].starts_with("KV cache in q8_0, because"), "{:?}", tight.notes);
        assert!(tight.plan.total_bytes() < f16);

        let refused = plan(f16 - 1, false).expect_err("f16 was forced").to_string();
        assert!(refused.contains("needs at least"), "{refused}");
        let hopeless = plan(q8_0 - 1, true).expect_err("too little for both").to_string();
        let smallest = forced.clone().with_budget_bytes(q8_0 - 1).with_kv(KvType::Q8_0);
        let least = prepare(ModelSource::open(&model.path).unwrap(), smallest).unwrap_err().to_string();
        assert_eq!(hopeless, least, "the least that works is reported");

        // And it runs.
        let mut session = open(tight, &mut |_, _| {}).unwrap();
        assert!(session.loaded().notes.iter().any(|note| note.contains("q8_0")));
        forced_run(&mut session, 40, 4).unwrap();
    }
}

#[test]
fn a_model_of_which_nothing_fits_streams_its_dense_weights_and_stays_in_its_budget() {
    let model = tiny(Shape::TinyMixtral, Quant::Q5_K, 1);
    let auto = settings(Residency::Auto);
    let least = least_bytes(&model.path, &auto);
    let planned = prepare(ModelSource::open(&model.path).unwrap(), auto.with_budget_bytes(least)).unwrap();
    assert!(planned.plan.total_bytes() <= least);
    let dense = planned.source.shape.total_bytes() - planned.source.shape.routed_bytes();
    assert!(planned.plan.resident_bytes() < dense);
    // The cache that is asked for counts on top.
    let cached = least_bytes(&model.path, &streaming(50.0));
    assert!(cached > least + planned.layout.total_bytes() * 2 / 5);
}

/// What `plan` says and what `run` gets; the former measured, and estimated as for a model that is elsewhere.
fn check_advice(path: &Path, settings: &LoadSettings) {
    let source = ModelSource::open(path).unwrap();
    let request = settings.model.plan_request(MediaNeeds::default());
    let (workload, what_if) = (Workload::default(), WhatIf::default());
    let asked = AdviceSettings { request, workload, what_if };
    let mut meter = NeedsMeter::new(&source, settings.tuning.threads, &settings.model.devices, None).unwrap();
    let profile = Profile::default();
    let advice =
        advise(&source.shape, &profile, &asked, |context, homes| meter.needs(context, homes)).unwrap();
    let elsewhere =
        advise(&source.shape, &profile, &asked, |context, _| estimate_needs(&source.shape, context)).unwrap();
    drop(meter);
    let planned = prepare(source, settings.clone()).unwrap();
    assert_eq!(advice.plan, planned.plan);
    assert_eq!(advice.notes, planned.notes);
    assert_eq!(elsewhere.plan.context, planned.plan.context, "an estimate settles the same context");
    assert_eq!(elsewhere.plan.mode(), planned.plan.mode());
}

#[test]
fn what_plan_shows_is_what_run_loads() {
    let tiny_models = [
        tiny(Shape::TinyMixtral, Quant::Q5_K, 1),
        tiny(Shape::TinyKimiK2, Quant::Q4_K, 2),
        tiny(Shape::TinyLlama, Quant::Q4_K, 1),
    ];
    let demo = demo_path();
    let paths = tiny_models.iter().map(|model| model.path.as_path()).chain([demo.as_path()]);
    for path in paths {
        let asked = LoadSettings::default().with_context(1 << 20).with_threads(1).with_ubatch_may_grow(true);
        let least = least_bytes(path, &asked);
        for (budget, shrinks) in [(least + 200_000, true), (least + least / 3, true), (u64::MAX, false)] {
            check_advice(path, &asked.clone().with_budget_bytes(budget).with_kv_may_shrink(shrinks));
        }
        let streamed = asked.clone().with_choice(Residency::Stream).with_budget_bytes(2 * least);
        check_advice(path, &streamed);
        // Less than a KV cache in f16 needs: it is in q8_0, or the context is halved.
        check_advice(path, &asked.with_budget_bytes(least - 100_000).with_least_context(Some(256)));
    }
}

#[test]
fn what_is_held_is_what_was_planned_and_nothing_writes_into_the_plan() {
    let model = tiny(Shape::TinyMixtral, Quant::Q5_K, 1);
    let least = least_bytes(&model.path, &settings(Residency::Stream));
    for settings in
        [settings(Residency::Resident), streaming(40.0), settings(Residency::Stream).with_budget_bytes(least)]
    {
        let loaded = session(&model.path, settings);
        let (loaded, planned) = (loaded.loaded(), &loaded.loaded().planned);
        let used = loaded.context.memory_use();
        assert_eq!(loaded.ledger.bytes_for(Purpose::Kv), used.context_bytes);
        assert_eq!(loaded.ledger.bytes_for(Purpose::Compute), used.compute_bytes);
        for entry in planned.plan.ledger.entries() {
            let held = loaded.ledger.bytes(entry.pool, entry.purpose);
            assert_eq!(held, entry.bytes, "{entry:?}");
        }
        assert_eq!(loaded.ledger.exceeded(&planned.plan.pools), None);
    }
}

/// The CPU's device was once decorated by the first load that streams, also between the load of another model
/// and its contexts, which then took several times the compute memory.
#[test]
fn a_context_takes_the_same_whatever_is_loaded_in_between() {
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let source = ModelSource::open(&model.path).unwrap();
    let (devices, homes) = (DeviceSettings::default(), Homes::on_host(&source.shape));
    let mut meter = NeedsMeter::new(&source, 1, &devices, None).unwrap();
    let context = ContextShape { context_tokens: 2048, ubatch_tokens: 24, ..ContextShape::default() };
    let before = meter.needs(&context, &homes).unwrap();
    let other = tiny(Shape::TinyMixtral, Quant::Q4_K, 1);
    drop(session(&other.path, streaming(50.0)));
    assert_eq!(meter.needs(&context, &homes).unwrap(), before);
}

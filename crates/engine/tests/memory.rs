//! What the plan makes of too little memory, before anything is loaded.

mod common;

use common::{forced_run, least_bytes, settings, streaming, tiny};
use hypura_core::plan::Choice;
use hypura_core::synth::{Quant, Shape};
use hypura_engine::KvType;
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::session::open;
use hypura_engine::source::ModelSource;

#[test]
fn a_kv_cache_that_does_not_fit_is_taken_in_q8_0_and_that_is_said() {
    for (shape, quant) in [
        (Shape::TinyLlama, Quant::Q4_K),
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyKimiK2, Quant::Q4_K),
    ] {
        let model = tiny(shape, quant, 1);
        let forced = LoadSettings { context: 2048, kv_may_shrink: false, ..settings(Choice::Auto) };
        let f16 = least_bytes(&model.path, &forced);
        let q8_0 = least_bytes(&model.path, &LoadSettings { kv: KvType::Q8_0, ..forced.clone() });
        assert!(q8_0 < f16, "{shape}: {q8_0} {f16}");
        let plan = |budget_bytes, kv_may_shrink| {
            let settings = LoadSettings { budget_bytes, kv_may_shrink, ..forced.clone() };
            prepare(ModelSource::open(&model.path).unwrap(), settings)
        };

        let roomy = plan(f16, true).unwrap();
        assert_eq!((roomy.settings.kv, roomy.notes.len()), (KvType::F16, 0), "f16 where it fits");

        let tight = plan(f16 - 1, true).unwrap();
        assert_eq!(tight.settings.kv, KvType::Q8_0, "{shape}");
        assert!(tight.notes[0].starts_with("KV cache in q8_0, because"), "{:?}", tight.notes);
        assert!(tight.plan.total_bytes() < f16);

        let refused = plan(f16 - 1, false).expect_err("f16 was forced").to_string();
        assert!(refused.contains("needs at least"), "{refused}");
        let hopeless = plan(q8_0 - 1, true).expect_err("too little for both").to_string();
        let smallest = LoadSettings { budget_bytes: q8_0 - 1, kv: KvType::Q8_0, ..forced.clone() };
        let least = prepare(ModelSource::open(&model.path).unwrap(), smallest).unwrap_err().to_string();
        assert_eq!(hopeless, least, "the least that works is told");

        // And it runs.
        let mut session = open(tight, &mut |_, _| {}).unwrap();
        assert!(session.loaded().notes.iter().any(|note| note.contains("q8_0")));
        forced_run(&mut session, 40, 4).unwrap();
    }
}

#[test]
fn a_model_of_which_nothing_fits_streams_its_trunk_and_stays_in_its_budget() {
    let model = tiny(Shape::TinyMixtral, Quant::Q5_K, 1);
    let auto = settings(Choice::Auto);
    let least = least_bytes(&model.path, &auto);
    let planned =
        prepare(ModelSource::open(&model.path).unwrap(), LoadSettings { budget_bytes: least, ..auto })
            .unwrap();
    assert!(planned.plan.total_bytes() <= least);
    let trunk = planned.source.shape.total_bytes() - planned.source.shape.routed_bytes();
    assert!(planned.plan.resident_bytes < trunk);
    // The cache that is asked for counts on top.
    let cached = least_bytes(&model.path, &streaming(50.0));
    assert!(cached > least + planned.layout.total_bytes() * 2 / 5);
}

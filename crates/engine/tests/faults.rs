//! Disks that fail: a fault ends the generation with an error that names the read, and the session continues
//! afterwards with the right bits. Nothing stale is ever computed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod common;

use common::{TinyModel, forced_run, hash, least_bytes, session, settings, streaming, tiny};
use hypura_core::plan::Residency;
use hypura_core::synth::{Quant, Shape};
use hypura_engine::ReaderKind;
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::session::open;
use hypura_engine::sim::{Eio, Latency, SimConfig, Stall};
use hypura_engine::source::ModelSource;
use hypura_engine::stream::{Held, Prefetch};
use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Loads through a healthy reader and streams through a simulated one.
fn simulated(percent: f64, sim: SimConfig) -> LoadSettings {
    streaming(percent).with_stream_reader(Some(ReaderKind::Sim(sim)))
}

/// The same in so little memory that the dense weights stream too.
fn simulated_mixed(model: &TinyModel, percent: f64, sim: SimConfig) -> LoadSettings {
    let settings = simulated(percent, sim);
    let least = least_bytes(&model.path, &settings);
    settings.with_budget_bytes(least + 100_000)
}

fn rough(seed: u64) -> SimConfig {
    SimConfig {
        seed,
        latency: Latency::Uniform { min: Duration::from_micros(20), max: Duration::from_millis(30) },
        out_of_order: true,
        short_read_probability: 0.3,
        stall: Some(Stall { at: 11, delay: Duration::from_secs(2) }),
        ..SimConfig::default()
    }
}

#[test]
fn disorder_short_reads_and_stalls_change_no_bit() {
    for (shape, quant) in [
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyGptOss, Quant::MXFP4),
        (Shape::TinyLlama, Quant::Q4_K),
    ] {
        let model = tiny(shape, quant, 1);
        let resident = hash(&model.path, settings(Residency::Resident));
        for seed in 0..3 {
            for percent in [0.0, 25.0] {
                assert_eq!(hash(&model.path, simulated(percent, rough(seed))), resident, "seed {seed}");
            }
        }
    }
}

#[test]
fn disorder_with_random_prefetches_changes_no_bit() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    for seed in 0..4 {
        let settings = simulated(30.0, rough(seed)).with_prefetch(Prefetch::Random(seed));
        assert_eq!(hash(&model.path, settings), resident, "seed {seed}");
    }
}

#[test]
fn a_failed_prefetch_of_an_expert_that_nobody_wants_is_no_failure() {
    // Every prefetch fails, at once, so that no lookup finds one under way: whoever wants the expert reads it
    // anew.
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    for prefetch in [Prefetch::Random(1), Prefetch::Random(2), Prefetch::Router] {
        let latency = Latency::Fixed(Duration::ZERO);
        let sim = SimConfig { eio: Eio::Prefetches, latency, ..SimConfig::default() };
        let mut session = session(&model.path, simulated(40.0, sim).with_prefetch(prefetch));
        let outcome = forced_run(&mut session, 40, 24).unwrap();
        let stats = outcome.decode_stats;
        assert!(stats.prefetches > 0 && stats.decode.prefetched == 0, "none of them was of use: {stats:?}");
        session.clear();
        let outcome = forced_run(&mut session, 40, 8).unwrap();
        assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "{prefetch:?}");
    }
}

#[test]
fn a_failed_read_ahead_fails_the_decode_that_needs_the_weight_and_no_other() {
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    let used = {
        let mut session = session(&model.path, simulated(20.0, SimConfig::default()));
        let outcome = forced_run(&mut session, 40, 8).unwrap();
        outcome.prefill_stats.dense_weights + outcome.decode_stats.dense_weights
    };
    // One call for each weight. The first that the run does not use is read ahead of a token that never
    // comes.
    for ahead in 0..2 {
        let latency = Latency::Fixed(Duration::ZERO);
        let sim = SimConfig { eio: Eio::OnceAt(used + ahead), latency, ..SimConfig::default() };
        let mut session = session(&model.path, simulated(20.0, sim));
        let outcome = forced_run(&mut session, 40, 8).unwrap();
        assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "{ahead} ahead");
        session.clear();
        let error = forced_run(&mut session, 40, 8).expect_err("its weight could not be read").to_string();
        assert!(error.contains("cannot read"), "{error}");
        assert_eq!(session.loaded().stats.held(), Held::default());
        session.clear();
        let outcome = forced_run(&mut session, 40, 8).unwrap();
        assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "{ahead} ahead, afterwards");
    }
}

/// A run that fails once somewhere, then a run that must be as if nothing had happened.
fn recovers(shape: Shape, quant: Quant, at: u64) {
    let model = tiny(shape, quant, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    let sim = SimConfig { eio: Eio::OnceAt(at), ..rough(at) };
    let mut session = session(&model.path, simulated(20.0, sim));
    let error = forced_run(&mut session, 40, 8).expect_err("the disk failed").to_string();
    assert!(error.contains("cannot read") && error.contains("at offset"), "{error}");
    session.clear();
    let outcome = forced_run(&mut session, 40, 8).unwrap();
    assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "after a fault at read {at}");
}

#[test]
fn a_failed_read_of_an_expert_ends_the_generation_and_the_next_one_is_exact() {
    for at in [0, 1, 5, 23, 60] {
        recovers(Shape::TinyQwen3Moe, Quant::Q4_K, at);
    }
}

/// An embedding that streams by the row, and nothing else.
fn simulated_rows(sim: SimConfig) -> LoadSettings {
    settings(Residency::Auto).with_tables(Residency::Stream).with_stream_reader(Some(ReaderKind::Sim(sim)))
}

#[test]
fn a_failed_read_of_a_row_fails_its_decode_and_no_other() {
    for (shape, shards) in
        [(Shape::TinyLlama, 1), (Shape::TinyGemma4, 3), (Shape::TinyQwen4Exp, 1), (Shape::TinyDeepSeek41, 1)]
    {
        let model = tiny(shape, Quant::Q4_K, shards);
        let resident = hash(&model.path, settings(Residency::Resident));
        for seed in 0..3 {
            let streamed = hash(&model.path, simulated_rows(rough(seed)));
            assert_eq!(streamed, resident, "{shape}: disorder, seed {seed}");
        }
        for at in [0, 7, 30] {
            let sim = SimConfig { eio: Eio::OnceAt(at), ..rough(at) };
            let mut session = session(&model.path, simulated_rows(sim));
            let error = forced_run(&mut session, 40, 8).expect_err("the disk failed").to_string();
            assert!(error.contains("cannot read") && error.contains("at offset"), "{error}");
            assert_eq!(session.loaded().stats.held(), Held::default());
            session.clear();
            let outcome = forced_run(&mut session, 40, 8).unwrap();
            let exact = outcome.logits_hash.unwrap().to_string();
            assert_eq!(exact, resident, "{shape}: after a fault at read {at}");
        }
    }
}

#[test]
fn a_failed_read_of_a_dense_weight_likewise() {
    for at in [0, 1, 9] {
        recovers(Shape::TinyLlama, Quant::Q4_K, at);
    }
}

#[test]
fn a_failed_read_where_dense_weights_and_experts_stream_likewise() {
    let model = tiny(Shape::TinyKimiK2, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    for seed in 0..2 {
        let settings = simulated_mixed(&model, 25.0, rough(seed));
        assert_eq!(hash(&model.path, settings), resident, "disorder {seed}");
    }
    for at in [0, 3, 11, 40, 90] {
        let sim = SimConfig { eio: Eio::OnceAt(at), ..rough(at) };
        let mut session = session(&model.path, simulated_mixed(&model, 20.0, sim));
        // Either stream may meet the fault, both do in the end: each has a reader of its own.
        let mut failures = 0;
        let exact = loop {
            match forced_run(&mut session, 40, 8) {
                Ok(outcome) => break outcome.logits_hash.unwrap().to_string(),
                Err(error) => {
                    failures += 1;
                    assert!(error.to_string().contains("cannot read"), "{error}");
                    assert_eq!(session.loaded().stats.held(), Held::default());
                }
            }
            session.clear();
        };
        assert!((1..=2).contains(&failures), "{failures} failures");
        assert_eq!(exact, resident, "after a fault at read {at}");
    }
}

#[test]
fn a_failed_read_in_any_wave_of_a_prompt_leaves_nothing_behind() {
    // No slots: every slice of the prompt goes through cells.
    for (shape, quant) in [(Shape::TinyQwen3Moe, Quant::Q4_K), (Shape::TinyGptOss, Quant::MXFP4)] {
        let model = tiny(shape, quant, 1);
        let resident = hash(&model.path, settings(Residency::Resident));
        for at in [2, 17, 33, 70] {
            let sim = SimConfig { eio: Eio::OnceAt(at), ..rough(at) };
            let mut session = session(&model.path, simulated(0.0, sim));
            assert!(forced_run(&mut session, 40, 8).is_err());
            assert_eq!(session.loaded().stats.held(), Held::default());
            session.clear();
            let outcome = forced_run(&mut session, 40, 8).unwrap();
            assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "after a fault at read {at}");
        }
    }
}

/// Stops generations at random moments of a slow disk; returns how many of them were in the middle of
/// something.
fn stop_at_random(model: &TinyModel, settings: LoadSettings, resident: &str, rounds: u64) -> usize {
    let mut session = session(&model.path, settings);
    let stats = session.loaded().stats.clone();
    let mut stopped = 0;
    for round in 0..rounds {
        let abort = session.loaded().abort.clone();
        let moment = Duration::from_micros(1 + (round * 7919 + 13) % 60_000);
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(moment);
            abort.store(true, Ordering::Relaxed);
        });
        let outcome = forced_run(&mut session, 40, 8);
        stopper.join().unwrap();
        session.loaded().abort.store(false, Ordering::Relaxed);
        session.clear();
        match outcome {
            Ok(outcome) if outcome.finish == hypura_engine::request::Finish::Stopped => {
                stopped += 1;
                assert_eq!(stats.held(), Held::default(), "round {round}");
            }
            Ok(_) => assert_eq!(stats.held().pins, 0, "round {round}"),
            Err(error) => panic!("{error}"),
        }
    }
    let outcome = forced_run(&mut session, 40, 8).unwrap();
    assert_eq!(outcome.logits_hash.unwrap().to_string(), resident);
    stopped
}

#[test]
fn a_stop_in_the_middle_of_any_wait_frees_every_pin_slot_cell_and_read() {
    let slow = |seed| SimConfig {
        stall: None,
        latency: Latency::Uniform { min: Duration::from_micros(50), max: Duration::from_millis(1) },
        real_time: true,
        ..rough(seed)
    };
    for (shape, quant) in [(Shape::TinyQwen3Moe, Quant::Q4_K), (Shape::TinyLlama, Quant::Q4_K)] {
        let model = tiny(shape, quant, 1);
        let resident = hash(&model.path, settings(Residency::Resident));
        for (seed, percent) in [(1, 0.0), (2, 25.0)] {
            let settings = simulated(percent, slow(seed)).with_prefetch(Prefetch::Random(seed));
            assert!(stop_at_random(&model, settings, &resident, 15) > 5, "{shape} {percent}%");
        }
    }
    let model = tiny(Shape::TinyKimiK2, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    assert!(stop_at_random(&model, simulated_mixed(&model, 20.0, slow(3)), &resident, 20) > 5);
}

#[test]
fn a_disk_that_is_gone_fails_every_generation_without_hanging() {
    let gone = |from| SimConfig { eio: Eio::ForeverFrom(from), ..rough(1) };
    let check = |model: &TinyModel, settings: LoadSettings, what: &str| {
        let mut session = session(&model.path, settings);
        for round in 0..3 {
            session.clear();
            let error = forced_run(&mut session, 40, 8).expect_err("the disk is gone").to_string();
            assert!(error.contains("cannot read"), "{what}: {error}");
            assert_eq!(session.loaded().stats.held(), Held::default(), "{what}, round {round}");
        }
    };
    let experts = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let two_classes = tiny(Shape::TinyQwen3Moe, Quant::Q4_K_M, 3);
    let dense = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let both = tiny(Shape::TinyKimiK2, Quant::Q4_K, 1);
    // From the first read, in the prompt, and at the end of it.
    for from in [0, 7, 30] {
        // Without slots the whole prompt goes through cells.
        check(&experts, simulated(0.0, gone(from)), "cells");
        check(&experts, simulated(20.0, gone(from)), "slots");
        check(&two_classes, simulated(20.0, gone(from)), "shards and size classes");
        check(&dense, simulated(20.0, gone(from)), "dense");
        check(&both, simulated_mixed(&both, 20.0, gone(from)), "dense weights and experts");
    }
}

#[test]
fn a_disk_that_goes_while_tokens_are_decoded_with_guesses_in_flight_leaves_nothing_behind() {
    // Reads that a guess started and a lookup joined fail like any other; how many reads come before depends
    // on nothing but the seed.
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    let (mut failed, mut joined) = (0, 0);
    for at in (100..1000).step_by(90) {
        let sim = SimConfig { eio: Eio::OnceAt(at), stall: None, ..rough(at) };
        let settings = simulated(30.0, sim).with_prefetch(Prefetch::Router);
        let mut session = session(&model.path, settings);
        let outcome = forced_run(&mut session, 40, 24);
        joined += session.loaded().stats.get().decode.late;
        if let Err(error) = outcome {
            failed += 1;
            assert!(error.to_string().contains("cannot read"), "{error}");
            assert_eq!(session.loaded().stats.held(), Held::default());
        }
        session.clear();
        let outcome = forced_run(&mut session, 40, 8).unwrap();
        assert_eq!(outcome.logits_hash.unwrap().to_string(), resident, "after a fault at read {at}");
    }
    assert!(failed > 0 && joined > 0, "{failed} failed, {joined} lookups joined a guess");
}

#[test]
fn a_flipped_bit_is_computed_with_because_a_gguf_has_no_checksums() {
    // The limit of what can be promised, written down: this test fails on the day that somebody adds
    // checksums.
    for shape in [Shape::TinyQwen3Moe, Shape::TinyLlama] {
        let model = tiny(shape, Quant::Q8_0, 1);
        let resident = hash(&model.path, settings(Residency::Resident));
        let sim = SimConfig { corruption_probability: 1.0, ..SimConfig::default() };
        assert_ne!(hash(&model.path, simulated(20.0, sim)), resident, "{shape}");
    }
}

/// A file that others write to while it streams: bytes of two versions were computed with, silently.
#[test]
fn a_file_that_changes_while_it_streams_is_a_failed_read_of_whatever_streams() {
    let rows = || settings(Residency::Auto).with_tables(Residency::Stream);
    for (what, shape, shards, settings) in [
        ("experts", Shape::TinyQwen3Moe, 1, streaming(20.0)),
        ("cells", Shape::TinyQwen3Moe, 1, streaming(0.0)),
        ("shards", Shape::TinyQwen3Moe, 2, streaming(20.0)),
        ("dense", Shape::TinyLlama, 1, streaming(20.0)),
        ("rows", Shape::TinyLlama, 1, rows()),
    ] {
        let model = tiny(shape, Quant::Q4_K, shards);
        let last = fs::read_dir(model.path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        let last = last.max().unwrap();
        for cut in [false, true] {
            let whole = fs::read(&last).unwrap();
            let mut session = session(&model.path, settings.clone());
            let resident = forced_run(&mut session, 40, 8).unwrap().logits_hash;
            session.clear();
            // The last byte is padding: no read that the model needs ends early.
            let file = fs::File::options().write(true).open(&last).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_len(whole.len() as u64 - u64::from(cut)).unwrap();
            file.set_modified(modified + Duration::from_secs(1)).unwrap();
            // Longer than the first one: rows of tokens that it had are in memory.
            let error = forced_run(&mut session, 60, 8).expect_err(what).to_string();
            assert!(error.contains("was changed while it was in use"), "{what}: {error}");
            assert!(error.contains(last.to_str().unwrap()), "{what}: {error}");
            assert_eq!(session.loaded().stats.held(), Held::default(), "{what}");
            // Whole again, and of the old date: nothing that was read in between is in memory.
            session.clear();
            fs::write(&last, whole).unwrap();
            file.set_modified(modified).unwrap();
            assert_eq!(forced_run(&mut session, 40, 8).unwrap().logits_hash, resident, "{what}");
        }
    }
}

#[test]
fn a_file_that_is_replaced_while_it_is_loaded_is_not_loaded() {
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let bytes = fs::read(&model.path).unwrap();
    let planned = prepare(ModelSource::open(&model.path).unwrap(), settings(Residency::Resident)).unwrap();
    fs::remove_file(&model.path).unwrap();
    fs::write(&model.path, bytes).unwrap();
    let error = open(planned, &mut |_, _| {}).err().expect("two files").to_string();
    assert!(error.contains("was changed while it was in use"), "{error}");
}

#[test]
fn a_stop_in_the_middle_gives_everything_back() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let resident = hash(&model.path, settings(Residency::Resident));
    let mut session = session(&model.path, simulated(20.0, rough(3)));
    let abort = session.loaded().abort.clone();
    let vocab = session.vocab().len();
    let all = common::tokens(48, vocab);
    let mut pieces = 0;
    let options = hypura_engine::session::GenerateOptions {
        forced: Some(all[40..].to_vec()),
        ignore_end: true,
        ..Default::default()
    };
    let outcome = session
        .generate(&all[..40], &options, &mut |_| {
            pieces += 1;
            if pieces == 3 {
                abort.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(outcome.finish, hypura_engine::request::Finish::Stopped);
    session.clear();
    // A leaked pin would trip the executor's own assertion (debug builds) or change what is evicted; stale
    // bytes would change the hash.
    let outcome = forced_run(&mut session, 40, 8).unwrap();
    assert_eq!(outcome.logits_hash.unwrap().to_string(), resident);
}

/// Stops a prompt while the disk hangs; the next one must be exact once it answers.
fn stop_while_the_disk_hangs(model: &TinyModel, settings: LoadSettings, at: u64, what: &str) {
    let resident = hash(&model.path, common::settings(Residency::Resident));
    let mut session = session(&model.path, settings);
    let (abort, stats) = (session.loaded().abort.clone(), session.loaded().stats.clone());
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        abort.store(true, Ordering::Relaxed);
    });
    let start = Instant::now();
    let outcome = forced_run(&mut session, 40, 8).unwrap();
    assert_eq!(outcome.finish, hypura_engine::request::Finish::Stopped, "{what}, read {at}");
    assert!(start.elapsed() < HANG / 2, "{what}, read {at}: the hanging read was waited for");
    stopper.join().unwrap();
    assert!(stats.held().reads > 0, "{what}, read {at}: the hanging read is still out");
    assert_eq!(stats.held().pins, 0, "{what}, read {at}");
    session.loaded().abort.store(false, Ordering::Relaxed);
    let mut exact = || loop {
        session.clear();
        match forced_run(&mut session, 40, 8) {
            Ok(outcome) => break outcome.logits_hash.unwrap().to_string(),
            // An expert of which only a part was being read.
            Err(error) => assert!(error.to_string().contains("did not answer in time"), "{error}"),
        }
    };
    // First beside the read that still hangs or behind it, then with what it brought.
    assert_eq!(exact(), resident, "{what}, read {at}");
    std::thread::sleep(HANG.saturating_sub(start.elapsed()));
    assert_eq!(exact(), resident, "{what}, read {at}, after the disk answered");
    assert_eq!(stats.held().pins, 0, "{what}, read {at}");
}

/// How long the simulated disk hangs.
const HANG: Duration = Duration::from_secs(4);

#[test]
fn a_stop_while_the_disk_hangs_ends_the_request_and_the_next_one_is_exact() {
    let hangs = |at| SimConfig {
        latency: Latency::Fixed(Duration::from_micros(20)),
        stall: Some(Stall { at, delay: HANG }),
        real_time: true,
        ..rough(at)
    };
    let experts = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let dense = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    for at in [0, 9] {
        stop_while_the_disk_hangs(&experts, simulated(0.0, hangs(at)), at, "cells");
        stop_while_the_disk_hangs(&experts, simulated(40.0, hangs(at)), at, "slots");
        stop_while_the_disk_hangs(&dense, simulated(20.0, hangs(at)), at, "dense");
    }
    let both = tiny(Shape::TinyKimiK2, Quant::Q4_K, 1);
    stop_while_the_disk_hangs(&both, simulated_mixed(&both, 20.0, hangs(5)), 5, "dense weights and experts");
}

#[test]
fn a_refused_conversation_leaves_the_template_that_was_chosen() {
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let mut session = session(&model.path, settings(Residency::Resident));
    session
        .use_template("{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}Q:")
        .unwrap();
    let one = r#"[{"role": "user", "content": "hi"}]"#;
    let two = r#"[{"role": "user", "content": "hi"}, {"role": "user", "content": "ho"}]"#;
    let refused = session.render(two).unwrap_err().to_string();
    assert!(refused.contains("one at a time"), "{refused}");
    assert_eq!(session.render(one).unwrap().text, "Q:");
    assert_eq!(session.take_template_note(), None);
}

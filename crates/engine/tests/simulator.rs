//! The simulator tells the truth: `hypura_core::sim::replay` and the engine count the same hits and misses
//! for the same routes, slots and policy. And routes that were recorded can be forced: the same routes and
//! the same bits again.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod common;

use common::{TinyModel, demo_path, forced_run, least_bytes, session, settings, streaming, tiny};
use hypura_core::cache::{ExpertCache, PolicyKind};
use hypura_core::plan::{Mode, Residency};
use hypura_core::sim::{ReplayOptions, replay};
use hypura_core::synth::{Quant, Shape};
use hypura_core::trace::{LayerRoutes, Phase, Trace, TraceHeader, TraceToken};
use hypura_engine::load::{LoadSettings, Planned, prepare};
use hypura_engine::request::Outcome;
use hypura_engine::session::{GenerateOptions, Session};
use hypura_engine::source::ModelSource;
use hypura_engine::stream::{Lookups, Prefetch, RouteLog, RouteSettings, StreamStats, trace_header};
use std::sync::Arc;

/// Tokens of a ubatch unless a test says otherwise.
const UBATCH: u32 = 24;

/// Hits and misses of the prompt and of the generated tokens.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    prefill: (u64, u64),
    decode: (u64, u64),
}

/// Without prefetching: what it reads depends on when reads end. Slots are touched before, because which are
/// used depends on that.
fn quiet(percent: f64, policy: PolicyKind) -> LoadSettings {
    let settings = streaming(percent).with_prefetch(Prefetch::Off).with_policy(policy);
    settings.with_ubatch(UBATCH).with_populate_first(true)
}

fn forced(trace: &Arc<Trace>) -> RouteSettings {
    RouteSettings { forced: Some(Arc::clone(trace)), ..RouteSettings::default() }
}

fn engine_counts(outcome: &Outcome) -> Counts {
    // A prompt's last ubatch may be small enough to be looked up like decoding; it is still the prompt's.
    let sum = |stats: &StreamStats| {
        let Lookups { hits, misses, .. } = stats.decode;
        (hits + stats.prefill.hits, misses + stats.prefill.misses)
    };
    Counts { prefill: sum(&outcome.prefill_stats), decode: sum(&outcome.decode_stats) }
}

/// Replays each size class on a cache as large as the plan gives it.
fn simulated_counts(planned: &Planned, trace: &Trace, ubatch: u32) -> Counts {
    let mut counts = Counts { prefill: (0, 0), decode: (0, 0) };
    for (class, slots) in planned.plan.slots(&planned.layout).iter().enumerate() {
        let mut layers = planned.layout.layers.iter().filter(|layer| layer.class == class);
        let of_class = trace.of_layers(|layer| layers.clone().any(|known| known.layer == layer));
        assert!(layers.next().is_some());
        let policy = planned.settings.tuning.policy.build(*slots, planned.source.shape.layers);
        let mut cache = ExpertCache::new(*slots, policy);
        let result = replay(&of_class, &mut cache, ReplayOptions { ubatch_tokens: ubatch });
        counts.prefill.0 += result.prefill.hits;
        counts.prefill.1 += result.prefill.misses();
        counts.decode.0 += result.decode.hits;
        counts.decode.1 += result.decode.misses();
    }
    counts
}

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or(0)
    }
}

/// Routes of a prompt and an answer. Each layer has favourites, and a token often repeats a choice of the one
/// before. The last layer has routes for the last token of the prompt only: the others are not computed
/// there.
fn generated(header: &TraceHeader, layers: &[u32], prompt: usize, decode: usize, seed: u64) -> Trace {
    let mut random = Random(seed);
    let (experts, used) = (header.experts as usize, header.used as usize);
    let mut before: Vec<Vec<u32>> = vec![Vec::new(); header.layers as usize];
    let mut token = |index: usize| {
        let phase = if index < prompt { Phase::Prefill } else { Phase::Decode };
        let mut routes = Vec::new();
        for layer in layers {
            let last = &mut before[*layer as usize];
            let mut chosen: Vec<u32> = Vec::new();
            while chosen.len() < used {
                let expert = match random.below(10) {
                    0..4 if !last.is_empty() => last[random.below(last.len())] as usize,
                    4..8 => {
                        (random.below(experts).min(random.below(experts)) / 2 + *layer as usize) % experts
                    }
                    _ => random.below(experts),
                };
                let expert = u32::try_from(expert).unwrap_or(0);
                if !chosen.contains(&expert) {
                    chosen.push(expert);
                }
            }
            last.clone_from(&chosen);
            if index + 1 >= prompt || Some(layer) != layers.last() {
                routes.push(LayerRoutes { layer: *layer, experts: chosen, weights: Vec::new() });
            }
        }
        TraceToken { phase, layers: routes }
    };
    Trace { header: header.clone(), tokens: (0..prompt + decode).map(&mut token).collect() }
}

fn header(session: &Session) -> TraceHeader {
    trace_header("tiny", &session.loaded().planned.source.shape).unwrap()
}

fn expert_layers(session: &Session) -> Vec<u32> {
    session.loaded().planned.layout.layers.iter().map(|layer| layer.layer).collect()
}

/// Runs the engine with generated routes and replays them.
fn check_generated(model: &TinyModel, settings: LoadSettings, prompt: usize, seed: u64) -> Counts {
    const GENERATED: usize = 40;
    let ubatch = settings.model.ubatch;
    let what =
        format!("{:?} {:?}, prompt {prompt}, ubatch {ubatch}", settings.tuning.policy, settings.model.cache);
    let free = session(&model.path, settings.clone());
    let trace = generated(&header(&free), &expert_layers(&free), prompt, GENERATED, seed);
    drop(free);
    let trace = Arc::new(trace);
    let mut opened = session(&model.path, settings.with_routes(forced(&trace)));
    let outcome = forced_run(&mut opened, prompt, GENERATED).unwrap();
    let counted = engine_counts(&outcome);
    assert_eq!(counted, simulated_counts(&opened.loaded().planned, &trace, ubatch), "{what}");
    counted
}

#[test]
fn generated_routes_at_every_policy_and_size() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let mut hits = Vec::new();
    for policy in PolicyKind::ALL {
        for percent in [0.0, 6.0, 15.0, 30.0, 60.0, 100.0] {
            hits.push(check_generated(&model, quiet(percent, policy), 40, 7).decode.0);
        }
    }
    for of_policy in hits.chunks(6) {
        assert!(of_policy[0] == 0 && of_policy.is_sorted() && of_policy[2] < of_policy[5], "{hits:?}");
    }
    // Were the policies not at work, all of them would count the same.
    assert!(hits[..6] != hits[6..12] && hits[6..12] != hits[12..], "{hits:?}");
}

#[test]
fn prompts_and_ubatches_around_the_size_of_a_decode_step() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    for (prompt, ubatch) in
        [(2, 24), (16, 24), (17, 24), (41, 24), (48, 24), (33, 16), (35, 17), (30, 7), (20, 1)]
    {
        let settings = quiet(20.0, PolicyKind::Lfru).with_ubatch(ubatch);
        check_generated(&model, settings, prompt, 3);
    }
}

#[test]
fn other_architectures() {
    for (shape, quant) in [
        (Shape::TinyMixtral, Quant::Q5_K),
        (Shape::TinyGptOss, Quant::MXFP4),
        // A dense layer comes first, and there are shared experts.
        (Shape::TinyKimiK2, Quant::Q2_K),
    ] {
        let model = tiny(shape, quant, 1);
        for policy in PolicyKind::ALL {
            check_generated(&model, quiet(25.0, policy), 30, 11);
        }
    }
}

#[test]
fn several_size_classes() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K_M, 1);
    for policy in PolicyKind::ALL {
        let settings = quiet(30.0, policy);
        let opened = session(&model.path, settings.clone());
        assert_eq!(opened.loaded().planned.plan.experts.as_ref().unwrap().slots.len(), 2);
        drop(opened);
        check_generated(&model, settings, 40, 5);
    }
}

#[test]
fn beside_dense_weights_that_stream_too() {
    let model = tiny(Shape::TinyMixtral, Quant::Q5_K, 1);
    for policy in PolicyKind::ALL {
        let asked = quiet(30.0, policy);
        let least = least_bytes(&model.path, &asked);
        let settings = asked.with_budget_bytes(least + 100_000);
        let opened = session(&model.path, settings.clone());
        assert_eq!(opened.loaded().planned.plan.mode(), Mode::MixedStreaming);
        drop(opened);
        check_generated(&model, settings, 40, 13);
    }
}

/// Routers that learned, on text that they did not see in training: what hits and misses of people look like.
#[test]
fn a_trained_model_that_reads_and_writes_text() {
    let text = std::fs::read_to_string(demo_path().with_file_name("heldout.txt")).unwrap();
    for policy in PolicyKind::ALL {
        for percent in [10.0, 25.0, 50.0] {
            let log = RouteLog::default();
            let routes = RouteSettings { log: Some(log.clone()), ..RouteSettings::default() };
            let settings = quiet(percent, policy).with_context(256).with_routes(routes).with_poison(false);
            let mut opened = session(&demo_path(), settings);
            let prompt = opened.vocab().tokenize(&text[..300], true, false);
            let options =
                GenerateOptions { max_tokens: Some(60), ignore_end: true, ..GenerateOptions::default() };
            let outcome = opened.generate(&prompt, &options, &mut |_| Ok(())).unwrap();
            let trace = Trace { header: header(&opened), tokens: log.take() };
            let counted = engine_counts(&outcome);
            assert_eq!(
                counted,
                simulated_counts(&opened.loaded().planned, &trace, UBATCH),
                "{policy:?} {percent}%"
            );
            let (hits, misses) = counted.decode;
            assert!(hits > 0 && misses > 0, "{counted:?}");
        }
    }
}

/// Runs with a log and returns what it recorded.
fn record(model: &TinyModel, settings: LoadSettings, prompt: usize) -> (Session, Outcome, Trace) {
    let log = RouteLog::default();
    let routes = RouteSettings { log: Some(log.clone()), ..settings.tuning.routes.clone() };
    let mut opened = session(&model.path, settings.with_routes(routes));
    let outcome = forced_run(&mut opened, prompt, 20).unwrap();
    let trace = Trace { header: header(&opened), tokens: log.take() };
    assert_eq!(trace.tokens.len(), prompt + 20);
    (opened, outcome, trace)
}

#[test]
fn a_recorded_run_replays_to_its_own_counts() {
    for (shape, quant) in [(Shape::TinyQwen3Moe, Quant::Q4_K), (Shape::TinyKimiK2, Quant::Q4_K_M)] {
        let model = tiny(shape, quant, 1);
        for policy in PolicyKind::ALL {
            for (percent, prompt) in [(0.0, 40), (10.0, 40), (35.0, 30), (35.0, 48)] {
                let (opened, outcome, trace) = record(&model, quiet(percent, policy), prompt);
                let simulated = simulated_counts(&opened.loaded().planned, &trace, UBATCH);
                assert_eq!(engine_counts(&outcome), simulated, "{shape} {policy:?} {percent}%");
            }
        }
    }
}

#[test]
fn what_was_recorded_is_forced_to_the_same_routes_and_bits() {
    for (shape, quant) in [
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyGptOss, Quant::MXFP4),
        (Shape::TinyKimiK2, Quant::Q2_K),
    ] {
        let model = tiny(shape, quant, 1);
        let modes = [streaming(30.0), settings(Residency::Resident), settings(Residency::Auto)];
        let (_, free, trace) = record(&model, modes[0].clone(), 40);
        let trace = Arc::new(trace);
        for (index, mode) in modes.into_iter().enumerate() {
            let settings = mode.with_routes(forced(&trace));
            let (_, outcome, again) = record(&model, settings, 40);
            assert_eq!(again, *trace, "{shape}, mode {index}");
            assert_eq!(outcome.logits_hash, free.logits_hash, "{shape}, mode {index}");
        }
    }
}

#[test]
fn forced_routes_are_those_of_the_trace_and_not_the_routers() {
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let (opened, free, recorded) = record(&model, streaming(30.0), 40);
    let trace = Arc::new(generated(&recorded.header, &expert_layers(&opened), 40, 20, 9));
    drop(opened);
    assert_ne!(trace.tokens, recorded.tokens);
    let settings = streaming(30.0).with_routes(forced(&trace));
    let (_, outcome, again) = record(&model, settings, 40);
    assert_eq!(again, *trace);
    assert_ne!(outcome.logits_hash, free.logits_hash);
}

#[test]
fn a_trace_of_a_larger_model_is_refused_before_anything_is_loaded() {
    let routes = LayerRoutes { layer: 0, experts: vec![100], weights: Vec::new() };
    let token = TraceToken { phase: Phase::Decode, layers: vec![routes] };
    let trace = Arc::new(Trace { header: TraceHeader::new("large", 1, 128, 1, 1), tokens: vec![token] });
    for (shape, experts) in [(Shape::TinyMixtral, "8 experts"), (Shape::TinyLlama, "0 experts")] {
        let model = tiny(shape, Quant::Q5_K, 1);
        let settings = streaming(30.0).with_routes(forced(&trace));
        let error = prepare(ModelSource::open(&model.path).unwrap(), settings).unwrap_err().to_string();
        assert!(error.contains("expert 100") && error.contains(experts), "{error}");
    }
}

#[test]
fn with_forced_routes_most_guesses_are_right_and_some_are_wrong() {
    // The model's own routers know nothing of the trace: theirs would be right by chance, one in four.
    let model = tiny(Shape::TinyQwen3Moe, Quant::Q4_K, 1);
    let settings = quiet(40.0, PolicyKind::Lfru).with_prefetch(Prefetch::Router);
    let free = session(&model.path, settings.clone());
    let trace = Arc::new(generated(&header(&free), &expert_layers(&free), 30, 60, 17));
    drop(free);
    let mut opened = session(&model.path, settings.with_routes(forced(&trace)));
    let stats = forced_run(&mut opened, 30, 60).unwrap().decode_stats;
    assert!(stats.prefetches > 100, "{stats:?}");
    assert!(stats.decode.prefetched * 2 > stats.prefetches, "{stats:?}");
    assert!(stats.prefetches_wasted > 0, "{stats:?}");
}

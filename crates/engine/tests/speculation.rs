//! Speculation: whatever is drafted, answers are those without; the draft model is in the plan; what cannot
//! draft is refused.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::mamba::mamba;
use common::serve::{ask, chat, greedy, runner, submit};
use common::{demo_path, least_bytes, session, settings, streaming, tiny, tokens};
use hypura_core::plan::{PlanError, Purpose, Residency};
use hypura_core::synth::{Quant, Shape};
use hypura_engine::SamplerOptions;
use hypura_engine::error::{DraftModelError, LoadError};
use hypura_engine::load::{Drafting, LoadSettings, Speculation, prepare};
use hypura_engine::request::{Options, Outcome, SpeculationStats};
use hypura_engine::session::{GenerateOptions, Session};
use hypura_engine::source::ModelSource;
use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

fn draft_path() -> PathBuf {
    demo_path().with_file_name("demo-draft-Q8_0.gguf")
}

/// As many drafts as there are, whatever they cost: with a price, how many are tried depends on the clock.
fn drafting(settings: LoadSettings, drafting: Drafting, fixed: u32) -> LoadSettings {
    settings.with_speculation(Speculation { drafting, fixed: Some(fixed), ..Speculation::default() })
}

/// Several rows of a sequence have the bits of one: what is compared is speculation, not rounding.
fn exact(settings: LoadSettings) -> LoadSettings {
    settings.with_reference_kernels(true).with_context(256)
}

fn with_draft(settings: LoadSettings, fixed: u32) -> LoadSettings {
    drafting(settings.with_draft(Some(draft_path())), Drafting::Model, fixed)
}

fn options(temperature: f32) -> GenerateOptions {
    let sampler = SamplerOptions { temperature, seed: 11, ..SamplerOptions::default() };
    GenerateOptions {
        max_tokens: Some(48),
        sampler,
        ignore_end: true,
        hash_logits: true,
        ..GenerateOptions::default()
    }
}

fn question(session: &mut Session, text: &str) -> Vec<i32> {
    let messages = serde_json::json!([{"role": "user", "content": text}]).to_string();
    let prompt = session.render(&messages).unwrap();
    session.tokenize_chat(&prompt)
}

fn answer(settings: LoadSettings, text: &str, options: &GenerateOptions) -> Outcome {
    let mut session = session(&demo_path(), settings);
    let prompt = question(&mut session, text);
    session.generate(&prompt, options, &mut |_| Ok(())).unwrap()
}

fn assert_same(drafted: &Outcome, plain: &Outcome, what: &str) {
    assert_eq!(drafted.tokens, plain.tokens, "{what}");
    assert_eq!(drafted.logits_hash, plain.logits_hash, "{what}: bit for bit");
    assert_eq!(plain.speculation, SpeculationStats::default());
}

#[test]
fn a_draft_model_saves_steps_and_changes_nothing_greedy_or_drawn() {
    for (temperature, least) in [(0.0, 25), (0.8, 10)] {
        let options = options(temperature);
        let plain = answer(exact(settings(Residency::Resident)), "What is a lynx?", &options);
        for settings in [exact(settings(Residency::Resident)), exact(streaming(33.0))] {
            let drafted = answer(with_draft(settings, 4), "What is a lynx?", &options);
            assert_same(&drafted, &plain, &format!("temperature {temperature}"));
            let SpeculationStats { proposed, accepted, steps, accepted_at, .. } = drafted.speculation;
            assert!(accepted >= least && proposed > accepted && steps > 0, "{:?}", drafted.speculation);
            assert_eq!(accepted_at.iter().sum::<u64>(), accepted);
            assert!(!drafted.speculation.drafting.is_zero());
        }
    }
}

#[test]
fn the_price_changes_how_many_are_drafted_and_nothing_else() {
    let options = options(0.0);
    let plain = answer(exact(streaming(33.0)), "What is Rust?", &options);
    let priced = Speculation { drafting: Drafting::Auto, ..Speculation::default() };
    let settings = exact(streaming(33.0)).with_draft(Some(draft_path())).with_speculation(priced);
    assert_same(&answer(settings, "What is Rust?", &options), &plain, "by price");
}

#[test]
fn a_draft_model_follows_a_conversation_and_prompts_longer_than_its_graphs() {
    let settings =
        with_draft(settings(Residency::Resident).with_reference_kernels(true).with_context(1024), 3);
    let mut drafting = session(&demo_path(), settings.clone());
    let mut plain = session(&demo_path(), settings.with_draft(None).with_speculation(Speculation::default()));
    let mut prompt = question(&mut plain, &"What is a lynx? ".repeat(60));
    assert!(prompt.len() > 300, "{}", prompt.len());
    for turn in 0..3 {
        let expected = plain.generate(&prompt, &options(0.0), &mut |_| Ok(())).unwrap();
        let drafted = drafting.generate(&prompt, &options(0.0), &mut |_| Ok(())).unwrap();
        assert_same(&drafted, &expected, &format!("turn {turn}"));
        assert_eq!(drafted.reused_tokens, expected.reused_tokens, "turn {turn}");
        assert!(drafted.speculation.accepted > 0);
        prompt.extend(&expected.tokens);
        prompt.extend(tokens(9, 300));
    }
}

/// Every architecture that there is a synthetic model of: its own answer is drafted, with a wrong token now
/// and then.
#[test]
fn drafts_right_and_wrong_change_no_bit_of_any_architecture() {
    for (shape, quant) in [
        (Shape::TinyMixtral, Quant::Q5_K),
        (Shape::TinyQwen3Moe, Quant::Q4_K),
        (Shape::TinyGptOss, Quant::MXFP4),
        (Shape::TinyKimiK2, Quant::Q2_K),
        (Shape::TinyLlama, Quant::Q4_K),
        (Shape::TinyQwen2, Quant::Q6_K),
        (Shape::TinyQwen2Vl, Quant::Q4_K),
        (Shape::TinyGemma3, Quant::Q4_K),
    ] {
        let model = tiny(shape, quant, 1);
        let prompt = tokens(20, 300);
        let run = |settings: LoadSettings, forced: Option<Vec<i32>>| {
            let options = GenerateOptions { forced, ..options(0.0) };
            session(&model.path, exact(settings)).generate(&prompt, &options, &mut |_| Ok(())).unwrap()
        };
        let plain = run(settings(Residency::Resident), None);
        for base in [settings(Residency::Resident), streaming(30.0), streaming(30.0).with_threads(2)] {
            let forced = Some("0.7".parse().unwrap());
            let speculation =
                Speculation { drafting: Drafting::Auto, fixed: Some(5), forced, ..Speculation::default() };
            let drafted = run(base.with_speculation(speculation), Some(plain.tokens.clone()));
            assert_same(&drafted, &plain, &format!("{shape}"));
            let SpeculationStats { proposed, accepted, .. } = drafted.speculation;
            assert!(accepted > 10 && proposed > accepted, "{shape}: {:?}", drafted.speculation);
        }
    }
}

/// The second and third token of a few thousand drawn answers.
fn drawn(model: &Path, drafts: Option<u32>, temperature: f32, seeds: Range<u32>) -> Vec<(i32, i32)> {
    let base = settings(Residency::Resident);
    // Its own draft model: what it finds likeliest comes true as often as it is drawn.
    let settings = match drafts {
        Some(count) => drafting(base.with_draft(Some(model.to_owned())), Drafting::Model, count),
        None => base,
    };
    let mut session = session(model, settings);
    let prompt = tokens(6, 300);
    let mut drafted = SpeculationStats::default();
    let answers = seeds.map(|seed| {
        let sampler = SamplerOptions { temperature, seed, top_k: 4, ..SamplerOptions::default() };
        let options = GenerateOptions { max_tokens: Some(3), sampler, ignore_end: true, ..options(0.0) };
        let outcome = session.generate(&prompt, &options, &mut |_| Ok(())).unwrap();
        drafted.add(&outcome.speculation);
        (outcome.tokens[1], outcome.tokens[2])
    });
    let answers = answers.collect();
    assert!(drafts.is_none() || drafted.accepted * 8 > drafted.proposed, "{drafted:?}");
    answers
}

/// Two samples of one distribution: chi-square over its degrees of freedom. Rare values count as one.
fn chi_square(one: &[(i32, i32)], other: &[(i32, i32)]) -> (f64, f64) {
    const RARE: f64 = 20.0;
    let mut counts: HashMap<(i32, i32), [f64; 2]> = HashMap::new();
    for (which, sample) in [one, other].into_iter().enumerate() {
        sample.iter().for_each(|value| counts.entry(*value).or_default()[which] += 1.0);
    }
    let (mut sum, mut cells, mut rare) = (0.0, 0.0, [0.0; 2]);
    let cell = |[a, b]: [f64; 2]| (a - b) * (a - b) / (a + b);
    for count in counts.into_values() {
        if count[0] + count[1] < RARE {
            rare = [rare[0] + count[0], rare[1] + count[1]];
        } else {
            (sum, cells) = (sum + cell(count), cells + 1.0);
        }
    }
    if rare[0] + rare[1] > 0.0 {
        (sum, cells) = (sum + cell(rare), cells + 1.0);
    }
    (sum, cells - 1.0)
}

/// The value that chi-square exceeds once in a thousand times (Wilson and Hilferty).
fn once_in_a_thousand(freedom: f64) -> f64 {
    const Z: f64 = 3.09;
    let ninth = 2.0 / (9.0 * freedom);
    freedom * (1.0 - ninth + Z * ninth.sqrt()).powi(3)
}

#[test]
fn drawn_answers_with_drafts_are_distributed_as_those_without() {
    const DRAWN: u32 = 1500;
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let plain = drawn(&model.path, None, 1.0, 0..DRAWN);
    let drafted = drawn(&model.path, Some(2), 1.0, DRAWN..2 * DRAWN);
    let (found, freedom) = chi_square(&plain, &drafted);
    assert!(freedom > 8.0 && found < once_in_a_thousand(freedom), "{found} of {freedom}");
    // It would notice: somewhat warmer is another distribution.
    let warmer = drawn(&model.path, Some(2), 1.5, DRAWN..2 * DRAWN);
    let (found, freedom) = chi_square(&plain, &warmer);
    assert!(found > once_in_a_thousand(freedom), "{found} of {freedom}");
}

#[test]
fn a_prediction_is_looked_into_without_any_flag() {
    let asked = drafting(exact(settings(Residency::Resident)), Drafting::Requested, 4);
    let plain = answer(asked.clone(), "What is a lynx?", &options(0.0));
    let mut session = session(&demo_path(), asked);
    let prompt = question(&mut session, "What is a lynx?");
    let mut text = String::new();
    session
        .generate(&prompt, &options(0.0), &mut |piece| {
            text.push_str(piece);
            Ok(())
        })
        .unwrap();
    session.clear();
    let options = GenerateOptions { prediction: Some(text), ..options(0.0) };
    let predicted = session.generate(&prompt, &options, &mut |_| Ok(())).unwrap();
    assert_same(&predicted, &plain, "with a prediction");
    assert!(predicted.speculation.accepted > 10, "{:?}", predicted.speculation);
    session.clear();
    let none = GenerateOptions { draft_most: Some(0), ..options };
    let without = session.generate(&prompt, &none, &mut |_| Ok(())).unwrap();
    assert_eq!(without.speculation.proposed, 0, "the request wants no drafts");
}

#[test]
fn users_beside_each_other_have_drafts_of_their_own() {
    let questions = ["What is a lynx?", "What is Rust?", "What is a vector?"];
    let options = Options { max_tokens: Some(40), ignore_end: true, ..greedy() };
    let alone = runner(&demo_path(), exact(settings(Residency::Resident)), 1);
    let expected: Vec<Vec<i32>> =
        questions.iter().map(|text| ask(&alone, chat(&alone, text), options.clone()).1.tokens).collect();
    let together = runner(&demo_path(), with_draft(exact(settings(Residency::Resident)), 3), 3);
    let running: Vec<_> =
        questions.iter().map(|text| submit(&together, chat(&together, text), options.clone())).collect();
    for ((_, events), expected) in running.iter().zip(&expected) {
        assert_eq!(&common::serve::finish(events).1.tokens, expected);
    }
    drop(running);
    let totals = common::serve::settled(&together).totals.speculation;
    assert!(totals.accepted > 20 && totals.proposed > totals.accepted, "{totals:?}");
}

/// Tokens of a greedy answer that another session, with drafts, would not have chosen after the same text;
/// and all of them. After each such token both go on from what the first one said.
fn flipped(plain: &mut Session, drafting: &mut Session, text: &str) -> (usize, usize) {
    let mut prompt = question(plain, text);
    let whole = GenerateOptions { max_tokens: Some(64), ..options(0.0) };
    let mut rest = plain.generate(&prompt, &whole, &mut |_| Ok(())).unwrap().tokens;
    let (mut flipped, all) = (0, rest.len());
    while !rest.is_empty() {
        let most = GenerateOptions { max_tokens: u32::try_from(rest.len()).ok(), ..options(0.0) };
        let other = drafting.generate(&prompt, &most, &mut |_| Ok(())).unwrap().tokens;
        let same = rest.iter().zip(&other).take_while(|(one, other)| one == other).count();
        flipped += usize::from(same < rest.len());
        prompt.extend(rest.drain(..(same + 1).min(rest.len())));
    }
    (flipped, all)
}

/// With llama.cpp's usual kernels, rows of a step round otherwise than single ones, which may flip a near
/// tie. Counted and printed; `HYPURA_FLIP_TOKENS` says over how many tokens, by default those of four
/// answers.
#[test]
fn with_the_usual_kernels_hardly_a_token_flips() {
    let wanted = std::env::var("HYPURA_FLIP_TOKENS").map_or(150, |tokens| tokens.parse().unwrap());
    let base = settings(Residency::Resident).with_context(256);
    let (mut plain, mut drafting) =
        (session(&demo_path(), base.clone()), session(&demo_path(), with_draft(base, 4)));
    let held_out = fs::read_to_string(demo_path().with_file_name("heldout-chat.jsonl")).unwrap();
    let held_out = held_out.lines().map(|line| {
        let question: serde_json::Value = serde_json::from_str(line).unwrap();
        question["question"].as_str().unwrap().to_owned()
    });
    let usual = ["What is a lynx?", "What is Rust?", "What is a vector?", "Who are you?"].map(str::to_owned);
    let (mut flips, mut all) = (0, 0);
    for text in usual.into_iter().chain(held_out) {
        if all >= wanted {
            break;
        }
        let (more, tokens) = flipped(&mut plain, &mut drafting, &text);
        (flips, all) = (flips + more, all + tokens);
    }
    println!("{flips} tokens of {all} flipped");
    assert!(all >= wanted && flips <= 1 + all.saturating_sub(400) / 50, "{flips} of {all}");
}

#[test]
fn the_draft_model_is_in_the_plan_and_its_ledger() {
    let plan =
        |settings: LoadSettings| prepare(ModelSource::open(&demo_path()).unwrap(), settings).unwrap().plan;
    let (without, with) = (plan(streaming(33.0)), plan(with_draft(streaming(33.0), 4)));
    let bytes = with.ledger.bytes_for(Purpose::Draft);
    let file = draft_path().metadata().unwrap().len();
    assert!(bytes > file && bytes < 4 * file, "{bytes} for a file of {file}");
    assert_eq!(without.ledger.bytes_for(Purpose::Draft), 0);
    assert_eq!(with.floor_bytes - without.floor_bytes, bytes);
    let longer = plan(with_draft(streaming(33.0).with_context(512), 4)).ledger.bytes_for(Purpose::Draft);
    assert!(longer > bytes, "its KV cache has as many tokens: {longer}");
    let least = least_bytes(&demo_path(), &streaming(33.0));
    let refused = prepare(
        ModelSource::open(&demo_path()).unwrap(),
        with_draft(streaming(33.0), 4).with_budget_bytes(least).with_kv_may_shrink(false),
    );
    let Err(LoadError::Plan(error @ PlanError::BelowFloor { .. })) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("draft model"), "{error}");
}

fn refusal(model: &Path, draft: &Path) -> DraftModelError {
    let asked =
        drafting(settings(Residency::Resident), Drafting::Model, 2).with_draft(Some(draft.to_owned()));
    match prepare(ModelSource::open(model).unwrap(), asked) {
        Err(LoadError::Draft(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn models_that_cannot_draft_are_refused_by_name() {
    let other = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let error = refusal(&demo_path(), &other.path);
    assert!(matches!(error, DraftModelError::Vocabulary { .. }), "{error}");
    assert!(error.to_string().contains(&other.path.display().to_string()), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let demo = ModelSource::open(&demo_path()).unwrap();
    let recurrent = mamba(folder.path(), &demo.metadata, demo.shape.vocab);
    let error = refusal(&demo_path(), &recurrent);
    assert!(
        matches!(&error, DraftModelError::Recurrent { architecture, .. } if architecture == "mamba"),
        "{error}"
    );
}

#[test]
fn a_recurrent_model_speculates_not_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let demo = ModelSource::open(&demo_path()).unwrap();
    let model = mamba(folder.path(), &demo.metadata, demo.shape.vocab);
    let asked = with_draft(settings(Residency::Resident), 4);
    let mut session = session(&model, drafting(asked, Drafting::Auto, 4));
    let notes = &session.loaded().notes;
    assert!(notes.iter().any(|note| note.contains("no speculation") && note.contains("mamba")), "{notes:?}");
    assert_eq!(session.loaded().ledger.bytes_for(Purpose::Draft), 0, "it is not loaded");
    let once = tokens(20, 300);
    let outcome = session.generate(&[once.clone(), once].concat(), &options(0.0), &mut |_| Ok(())).unwrap();
    assert_eq!(outcome.speculation, SpeculationStats::default());
}

#[test]
fn forced_acceptance_is_as_asked() {
    let forced = Some("0.8".parse().unwrap());
    let speculation =
        Speculation { drafting: Drafting::Auto, fixed: Some(4), forced, ..Speculation::default() };
    let model = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let mut session =
        session(&model.path, settings(Residency::Resident).with_context(1024).with_speculation(speculation));
    let forced = tokens(800, 300);
    let options = GenerateOptions { forced: Some(forced.clone()), ..GenerateOptions::default() };
    let outcome = session.generate(&tokens(5, 300), &options, &mut |_| Ok(())).unwrap();
    assert_eq!(outcome.tokens, forced);
    let first = outcome.speculation.accepted_at[0] as f64 / outcome.speculation.steps as f64;
    assert!((first - 0.8).abs() < 0.07, "{first}");
}

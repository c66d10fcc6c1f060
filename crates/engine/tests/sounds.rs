//! Sounds in prompts: exact also where weights stream, reused as a whole, beside pictures.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::media::{Sensing, forced, hash_of, prompt, run, sensing};
use common::serve::{greedy, runner};
use common::{least_bytes, settings, streaming, tiny};
use hypura_core::plan::Residency;
use hypura_core::synth::{self, ProjectorKind, Quant, Shape};
use hypura_engine::Token;
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::media::sound::{self, SoundError};
use hypura_engine::media::{MediaPrompt, MediaPromptError, Modalities, marker};
use hypura_engine::session::{GenerateOptions, Session};
use hypura_engine::source::ModelSource;
use hypura_ggml::media::{Medium, Projector, PromptPart, PromptPiece, RowPlaces};
use hypura_ggml::{LoadMode, LoadOptions, Model};
use std::fs;

/// Llama's, one with experts, and one that gives each row four positions and also sees.
const SHAPES: [Shape; 3] = [Shape::TinyLlama, Shape::TinyQwen3Moe, Shape::TinyQwen2Vl];

/// A model that hears.
fn hearing(shape: Shape) -> Sensing {
    sensing(shape, &ProjectorKind::hearing(shape).file_of(shape, 7).unwrap())
}

/// As much as the sounds of these tests take: Qwen2.5-Omni's kind has 750 rows for each half minute that
/// begins.
fn wide(residency: Residency) -> LoadSettings {
    settings(residency).with_context(1800).with_ubatch(64)
}

#[test]
fn a_streamed_run_with_sounds_equals_the_resident_one_bit_for_bit() {
    for shape in SHAPES {
        let hearing = hearing(shape);
        let (one, two) = (synth::sound(1, 1.0), synth::sound(2, 0.7));
        let sounds: [&[u8]; 2] = [&one, &two];
        let (resident, read) = hash_of(&hearing, wide(Residency::Resident), &sounds);
        assert_eq!(read, 0);
        for percent in [0.0, 45.0] {
            let settings = streaming(percent).with_context(1800).with_ubatch(64);
            let (streamed, read) = hash_of(&hearing, settings, &sounds);
            assert_eq!(streamed, resident, "{shape} {percent}%");
            assert!(read > 0, "{shape} {percent}%: nothing was streamed");
        }
    }
}

#[test]
fn another_sound_gives_other_logits_and_the_same_one_the_same() {
    for shape in SHAPES {
        let hearing = hearing(shape);
        let hash = |seed| hash_of(&hearing, wide(Residency::Resident), &[&synth::sound(seed, 1.0)]).0;
        let one = hash(1);
        assert_eq!(one, hash(1), "{shape}");
        assert_ne!(one, hash(2), "{shape}");
    }
}

#[test]
fn the_second_turn_of_a_chat_uses_the_rows_of_the_first() {
    for shape in SHAPES {
        let hearing = hearing(shape);
        let (one, two) = (synth::sound(1, 1.0), synth::sound(2, 1.0));
        let mut session = hearing.session(wide(Residency::Resident));
        let first = prompt(&mut session, "listen to <sound> now", &[&one]);
        let (length, rows) = (first.tokens.len(), first.media.rows());
        assert!(rows >= 25, "{shape}: {rows}");
        let options = || forced(vec![40, 50]);
        session.generate_after(first, &options(), &mut |_| Ok(())).unwrap();
        let longer = "listen to <sound> now and then to <sound> please";
        let second = prompt(&mut session, longer, &[&one, &two]);
        let outcome = session.generate_after(second.clone(), &options(), &mut |_| Ok(())).unwrap();
        assert!(outcome.reused_tokens > rows && outcome.reused_tokens < length, "{shape}: {outcome:?}");
        // The same once more: all but the last token.
        let again = session.generate_after(second.clone(), &options(), &mut |_| Ok(())).unwrap();
        assert_eq!(again.reused_tokens, second.tokens.len() - 1, "{shape}");
        // Another sound in its place: nothing from there on.
        let other = prompt(&mut session, "listen to <sound> now", &[&two]);
        let start = other.tokens.iter().position(|token| *token < 0).unwrap();
        let outcome = session.generate_after(other, &options(), &mut |_| Ok(())).unwrap();
        assert!(outcome.reused_tokens <= start, "{shape}: {} of {start}", outcome.reused_tokens);
    }
}

#[test]
fn what_was_reused_answers_as_what_is_read_anew() {
    // Not an MoE model: its routers amplify the last bits, which the number of rows in a step decides.
    for shape in [Shape::TinyLlama, Shape::TinyQwen2Vl] {
        let hearing = hearing(shape);
        let (one, two) = (synth::sound(1, 1.0), synth::sound(2, 1.0));
        let answer = |session: &mut Session, text: &str, media: &[&[u8]]| {
            let prompt = prompt(session, text, media);
            let options = GenerateOptions { forced: None, max_tokens: Some(6), ..forced(Vec::new()) };
            session.generate_after(prompt, &options, &mut |_| Ok(())).unwrap()
        };
        let longer = "listen to <sound> now and then to <sound> please";
        let mut warm = hearing.session(wide(Residency::Resident));
        answer(&mut warm, "listen to <sound> now", &[&one]);
        let reused = answer(&mut warm, longer, &[&one, &two]);
        let anew = answer(&mut hearing.session(wide(Residency::Resident)), longer, &[&one, &two]);
        assert!(reused.reused_tokens > 0 && anew.reused_tokens == 0);
        assert_eq!(reused.tokens, anew.tokens, "{shape}");
    }
}

/// A model by which sounds are cut, and its projector.
fn projector(hearing: &Sensing) -> Projector {
    let options =
        LoadOptions::on_cpu(hearing.model.path.clone(), LoadMode::Measure { placements: Vec::new() });
    let model = Model::load(&options).unwrap().fill(|_| Ok::<(), ()>(())).unwrap();
    Projector::load(&hearing.projector, &model, 1, &mut |_| true).unwrap()
}

#[test]
fn a_long_sound_is_several_pieces_one_behind_the_other() {
    for shape in SHAPES {
        let hearing = hearing(shape);
        let projector = projector(&hearing);
        assert_eq!(projector.facts().sample_rate, Some(16_000));
        for (seconds, expected) in [(0.001, 1), (29.0, 1), (31.0, 2), (95.0, 4)] {
            let samples = sound::decode(&synth::sound(3, seconds), 16_000, 600).unwrap();
            let medium = Medium::sound(&samples, "it").unwrap();
            let text = |text| PromptPart::Text { text, control: true };
            let pieces = projector.tokenize(&[text("hear"), PromptPart::Medium(&medium), text("?")]).unwrap();
            let chunks: Vec<_> = pieces
                .iter()
                .filter_map(|piece| match piece {
                    PromptPiece::Media(chunk) => Some(chunk),
                    PromptPiece::Tokens(_) => None,
                })
                .collect();
            assert_eq!(chunks.len(), expected, "{shape} {seconds} s");
            for chunk in chunks {
                assert_eq!((chunk.id().as_str(), chunk.non_causal()), ("it", false));
                assert_eq!(chunk.positions(), chunk.rows(), "sounds take as many positions as rows");
                assert_eq!(chunk.rows(), if shape == Shape::TinyQwen2Vl { 750 } else { 25 });
                match chunk.places(7).unwrap() {
                    RowPlaces::One(places) => assert_eq!((places[0], places[24]), (7, 31)),
                    RowPlaces::Four(places) => assert_eq!((places[0], places[749]), ([7; 4], [756; 4])),
                }
                if expected == 1 {
                    let rows = projector.encode(chunk).unwrap();
                    assert!(rows.iter().all(|number| number.is_finite()), "{shape} {seconds} s");
                }
            }
        }
    }
}

#[test]
fn a_sound_of_several_pieces_is_heard_to_its_end() {
    let hearing = hearing(Shape::TinyLlama);
    let long = synth::sound(1, 62.0);
    let mut other_end = long.clone();
    other_end[60 * 32_000..].iter_mut().for_each(|byte| *byte ^= 0x2a);
    let mut session = hearing.session(wide(Residency::Resident));
    let heard = run(&mut session, "<sound>", &[&long]);
    assert_ne!(heard.logits_hash.unwrap(), run(&mut session, "<sound>", &[&other_end]).logits_hash.unwrap());
}

#[test]
fn pictures_and_sounds_of_one_prompt_come_in_their_order() {
    let hearing = hearing(Shape::TinyQwen2Vl);
    let mut session = hearing.session(wide(Residency::Resident));
    assert_eq!(session.modalities(), Modalities { pictures: true, sounds: true });
    let (picture, sound) = (synth::picture(1, 112, 84), synth::sound(1, 1.0));
    let runs = |prompt: &MediaPrompt| {
        let mut runs: Vec<(Token, usize)> = Vec::new();
        for token in prompt.tokens.iter().filter(|token| **token < 0) {
            match runs.last_mut() {
                Some((last, count)) if last == token => *count += 1,
                _ => runs.push((*token, 1)),
            }
        }
        runs
    };
    let one = runs(&prompt(&mut session, "<sound> x <sound>", &[&picture, &sound]));
    let two = runs(&prompt(&mut session, "<sound> x <sound>", &[&sound, &picture]));
    assert_eq!((one.len(), two.len(), one[1].1, two[0].1), (2, 2, 750, 750));
    assert!(one[0].1 < 100 && two[1].1 < 100);
    let hash = |session: &mut Session, media: &[&[u8]]| {
        run(session, "<sound> and <sound>", media).logits_hash.unwrap().to_string()
    };
    assert_ne!(hash(&mut session, &[&picture, &sound]), hash(&mut session, &[&sound, &picture]));
}

#[test]
fn a_sense_that_is_missing_and_a_sound_that_is_none_are_refused() {
    let (sound, picture) = (synth::sound(1, 1.0), synth::picture(1, 64, 48));
    let deaf = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let tokenize_with_media = |hearing: Option<&Sensing>, media: &[&[u8]]| {
        let load =
            hearing.map_or(wide(Residency::Resident), |hearing| hearing.settings(wide(Residency::Resident)));
        let path = hearing.map_or(&deaf.path, |hearing| &hearing.model.path);
        runner(path, load, 1).text().tokenize_text_with_media(&marker().repeat(media.len()), media)
    };
    let ears = hearing(Shape::TinyLlama);
    assert_eq!(tokenize_with_media(None, &[&sound]).err(), Some(MediaPromptError::Deaf));
    assert_eq!(tokenize_with_media(None, &[&picture]).err(), Some(MediaPromptError::Blind));
    assert_eq!(tokenize_with_media(Some(&ears), &[&sound, &picture]).err(), Some(MediaPromptError::Blind));
    let eyes = hearing(Shape::TinyLlama);
    fs::write(&eyes.projector, ProjectorKind::Mlp.file(256, 1).unwrap()).unwrap();
    assert_eq!(tokenize_with_media(Some(&eyes), &[&picture, &sound]).err(), Some(MediaPromptError::Deaf));
    for (bytes, number) in [(&sound[..5000], 2), (b"OggS", 2), (&sound[..44], 2)] {
        let refused = tokenize_with_media(Some(&ears), &[&sound, bytes]).err();
        assert!(
            matches!(refused, Some(MediaPromptError::Sound { number: at, .. }) if at == number),
            "{refused:?}"
        );
    }
    // Ten minutes in one prompt, however many sounds they are in.
    let long = synth::sound(1, 250.0);
    let refused = tokenize_with_media(Some(&ears), &[&long, &long, &long]).err();
    let too_long = SoundError::TooLong { most: 100 };
    assert_eq!(refused, Some(MediaPromptError::Sound { number: 3, error: too_long }));
}

#[test]
fn the_plan_counts_what_hears_and_the_server_says_what_it_can() {
    let hearing = hearing(Shape::TinyLlama);
    let path = &hearing.model.path;
    let bare = least_bytes(path, &settings(Residency::Auto));
    let with = least_bytes(path, &hearing.settings(settings(Residency::Auto)));
    let planned =
        prepare(ModelSource::open(path).unwrap(), hearing.settings(settings(Residency::Auto))).unwrap();
    let projector = planned.projector.as_ref().unwrap().bytes;
    // Ten minutes of samples, at the least.
    assert!(projector > 600 * 16_000 * 4);
    assert_eq!(with, bare + projector);
    let runner = runner(path, hearing.settings(wide(Residency::Resident)), 1);
    assert_eq!(runner.info().modalities, Modalities { pictures: false, sounds: true });
    let prompt =
        runner.text().tokenize_text_with_media(&format!("{} x", marker()), &[&synth::sound(1, 1.0)]).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let options = hypura_engine::request::Options { max_tokens: Some(3), ..greedy() };
    let handle = runner.submit_cut(prompt, options, Box::new(move |event| sender.send(event).is_ok()));
    handle.unwrap().detach();
    let (_, finished) = common::serve::finish(&receiver);
    assert_eq!(finished.tokens.len(), 3);
}

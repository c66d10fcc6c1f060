//! Sounds on the command line: by flag, by name in the prompt, within the plan.

use hypura_core::synth;
use serde_json::Value;
use std::fs;

use super::kit::run;

/// A folder with a model that hears.
struct Ears(tempfile::TempDir);

impl Ears {
    fn new(kind: &str) -> Self {
        let ears = Self(tempfile::tempdir().unwrap());
        let (model, projector) = (ears.at("m.gguf"), ears.at("mmproj-F16.gguf"));
        run(["synth", "tiny-llama", "--out", &model, "--mmproj", &projector, "--mmproj-kind", kind])
            .assert_success();
        for seed in [1, 2] {
            fs::write(ears.at(&format!("s{seed}.wav")), synth::sound(seed, 1.0)).unwrap();
        }
        ears
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn stats(&self, flags: &[&str], prompt: &str) -> Value {
        let (file, model) = (self.at("stats.json"), self.at("m.gguf"));
        let flags =
            [&["-n", "5", "--temperature", "0", "--logits-hash", "--stats-json", &file], flags].concat();
        run([&["run", &model, prompt], flags.as_slice()].concat()).assert_success();
        serde_json::from_slice(&fs::read(&file).unwrap()).unwrap()
    }

    fn hash(&self, flags: &[&str], prompt: &str) -> String {
        find(&self.stats(&[flags, &["--ctx", "256"]].concat(), prompt), "logits_hash").unwrap().to_string()
    }
}

fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let map = value.as_object()?;
    map.get(key).or_else(|| map.values().find_map(|value| find(value, key)))
}

#[test]
fn a_flag_and_a_name_in_the_prompt_play_the_same_sound() {
    let ears = Ears::new("ultravox");
    let (one, two) = (ears.at("s1.wav"), ears.at("s2.wav"));
    let by_flag = ears.hash(&["--audio", &one], "what is it?");
    assert_eq!(by_flag, ears.hash(&[], &format!("{one} what is it?")));
    assert_ne!(by_flag, ears.hash(&["--audio", &two], "what is it?"));
    assert_ne!(by_flag, ears.hash(&[], "what is it?"));
    let streamed = ["--audio", &one, "--residency", "stream", "--stream-cache", "0%"];
    let resident = ["--audio", &one, "--residency", "resident"];
    assert_eq!(ears.hash(&streamed, "what?"), ears.hash(&resident, "what?"));
}

#[test]
fn what_a_model_cannot_hear_and_what_is_no_sound_is_named() {
    let (ears, eyes) = (Ears::new("ultravox"), Ears::new("mlp"));
    let (model, one) = (ears.at("m.gguf"), ears.at("s1.wav"));
    let picture = ears.at("p.bmp");
    fs::write(&picture, synth::picture(1, 64, 48)).unwrap();
    run(["run", &model, "what?", "--image", &picture]).assert_error(1, &["sees no images", "--mmproj"]);
    run(["run", &eyes.at("m.gguf"), "what?", "--audio", &one]).assert_error(1, &["hears no audio"]);
    run(["run", &model, "what?", "--audio", &picture]).assert_error(1, &["p.bmp", "no audio"]);
    let text = ears.at("text.wav");
    fs::write(&text, "no sound").unwrap();
    run(["run", &model, "what?", "--audio", &text]).assert_error(1, &["text.wav"]);
    fs::write(&text, &synth::sound(1, 1.0)[..5000]).unwrap();
    run(["run", &model, "what?", "--audio", &text]).assert_error(1, &["text.wav", "cut off"]);
    // The name of a picture is text for a model that only hears.
    ears.hash(&[], &format!("{picture} what is it?"));
    let bad = ["synth", "tiny-llama", "--out", &ears.at("x.gguf"), "--mmproj", &ears.at("y.gguf")];
    run([&bad[..], &["--mmproj-kind", "nose"]].concat()).assert_error(2, &["ultravox", "omni"]);
}

#[test]
fn the_longest_sound_stays_within_the_plan() {
    let ears = Ears::new("ultravox");
    let long = ears.at("long.wav");
    fs::write(&long, synth::sound(1, 599.0)).unwrap();
    let stats = ears.stats(&["--audio", &long, "--ctx", "1024"], "what is it?");
    let number = |key: &str| find(&stats, key).and_then(Value::as_u64).unwrap();
    let (peak, planned) = (number("peak_rss_bytes"), number("planned_bytes"));
    assert!(peak > 90 << 20, "the sound was decoded: {peak}");
    assert!(peak as f64 <= planned as f64 * 1.03, "{peak} of {planned}");
    fs::write(&long, synth::sound(1, 601.0)).unwrap();
    let model = ears.at("m.gguf");
    run(["run", &model, "what?", "--audio", &long]).assert_error(1, &["longer than the 600 seconds"]);
}

//! Images on the command line: by flag, by name in the prompt, with the projector that is found or named.

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use hypura_core::synth::{self, ProjectorKind, Shape};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::kit::{finish, hypura, model, run};

/// A folder with a model that sees, and two pictures.
struct Sight {
    folder: tempfile::TempDir,
    model: PathBuf,
}

fn picture(seed: u8) -> Vec<u8> {
    synth::picture(seed, 64, 48)
}

impl Sight {
    fn new(projector: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = model(folder.path(), Shape::TinyQwen2Vl, 1);
        if projector {
            let eyes = ProjectorKind::file_for(Shape::TinyQwen2Vl, 1).unwrap();
            fs::write(folder.path().join("mmproj-F16.gguf"), eyes).unwrap();
        }
        for seed in [1, 2] {
            fs::write(folder.path().join(format!("p{seed}.bmp")), picture(seed)).unwrap();
        }
        Self { folder, model }
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn answer(&self, flags: &[&str], prompt: &str) -> String {
        let flags = [&["-n", "5", "--temperature", "0", "--ctx", "256"], flags].concat();
        let model = self.model.to_str().unwrap();
        let run = run([&["run", model, prompt], flags.as_slice()].concat()).assert_success();
        run.stdout
    }
}

fn stats(sight: &Sight, flags: &[&str], prompt: &str) -> Value {
    let file = sight.at("stats.json");
    sight.answer(&[flags, &["--logits-hash", "--stats-json", &file]].concat(), prompt);
    serde_json::from_slice(&fs::read(&file).unwrap()).unwrap()
}

fn hash(stats: &Value) -> String {
    fn find(value: &Value) -> Option<&Value> {
        match value {
            Value::Object(map) => map.get("logits_hash").or_else(|| map.values().find_map(find)),
            _ => None,
        }
    }
    find(stats).unwrap().to_string()
}

#[test]
fn a_flag_and_a_name_in_the_prompt_show_the_same_picture() {
    let sight = Sight::new(true);
    let (one, two) = (sight.at("p1.bmp"), sight.at("p2.bmp"));
    let by_flag = hash(&stats(&sight, &["--image", &one], "what is it?"));
    let by_name = hash(&stats(&sight, &[], &format!("{one} what is it?")));
    assert_eq!(by_flag, by_name);
    assert_ne!(by_flag, hash(&stats(&sight, &["--image", &two], "what is it?")));
    assert_ne!(by_flag, hash(&stats(&sight, &[], "what is it?")));
    let streamed = ["--image", &one, "--residency", "stream", "--stream-cache", "0%"];
    let resident = ["--image", &one, "--residency", "resident"];
    assert_eq!(hash(&stats(&sight, &streamed, "what?")), hash(&stats(&sight, &resident, "what?")));
    sight.answer(&["--image", &one, "--image", &two, "--raw"], "compare");
}

#[test]
fn without_a_projector_a_picture_is_an_error_and_its_name_is_text() {
    let sight = Sight::new(false);
    let one = sight.at("p1.bmp");
    let model = sight.model.to_str().unwrap();
    run(["run", model, "what?", "--image", &one]).assert_error(1, &["sees no images", "--mmproj"]);
    sight.answer(&[], &format!("{one} what is it?"));
    let eyes = sight.at("eyes.gguf");
    fs::write(&eyes, ProjectorKind::file_for(Shape::TinyQwen2Vl, 1).unwrap()).unwrap();
    sight.answer(&["--mmproj", &eyes, "--image", &one], "what?");
}

#[test]
fn bad_pictures_and_projectors_are_named() {
    let sight = Sight::new(true);
    let model = sight.model.to_str().unwrap();
    let text = sight.at("text.png");
    fs::write(&text, "no picture").unwrap();
    run(["run", model, "what?", "--image", &text]).assert_error(1, &["text.png", "jpeg"]);
    run(["run", model, "what?", "--image", "/nowhere/x.png"]).assert_error(1, &["/nowhere/x.png"]);
    run(["run", model, "what?", "--mmproj", model]).assert_error(1, &["no projector"]);
    let wrong = sight.at("wrong.gguf");
    fs::write(&wrong, ProjectorKind::Qwen2Vl.file(128, 1).unwrap()).unwrap();
    let refused = run(["run", model, "what?", "--mmproj", &wrong]);
    assert!(refused.code != Some(0) && refused.stderr.contains("mismatch"), "{refused:?}");
}

#[test]
fn a_synthetic_model_can_have_a_projector() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (model, eyes, picture_file) = (at("m.gguf"), at("mmproj.gguf"), at("p.bmp"));
    let flags = ["synth", "tiny-gemma3", "--out", &model, "--mmproj", &eyes];
    run(flags).assert_success();
    run(flags).assert_error(1, &["mmproj.gguf"]);
    fs::write(&picture_file, picture(1)).unwrap();
    run(["run", &model, "what?", "-n", "3", "--image", &picture_file]).assert_success();
}

/// A PNG of one colour: small as a file, large as a picture.
fn large_png(width: u32, height: u32) -> Vec<u8> {
    let mut rows = ZlibEncoder::new(Vec::new(), Compression::fast());
    let row = vec![0u8; 1 + width as usize * 3];
    (0..height).for_each(|_| rows.write_all(&row).unwrap());
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", head), (b"IDAT", rows.finish().unwrap()), (b"IEND", Vec::new())] {
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(&data);
        file.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        file.extend(kind);
        file.extend(data);
        file.extend(crc.sum().to_be_bytes());
    }
    file
}

#[test]
fn the_largest_picture_stays_within_the_plan() {
    let sight = Sight::new(true);
    let large = sight.at("large.png");
    fs::write(&large, large_png(8000, 8000)).unwrap();
    let stats = stats(&sight, &["--image", &large], "what is it?");
    fn find(value: &Value, key: &str) -> Option<u64> {
        value
            .get(key)
            .and_then(Value::as_u64)
            .or_else(|| value.as_object().into_iter().flatten().find_map(|(_, value)| find(value, key)))
    }
    let peak = find(&stats, "peak_rss_bytes").unwrap();
    let planned = find(&stats, "planned_bytes").unwrap();
    assert!(peak > 150 << 20, "the picture was decoded: {peak}");
    assert!(peak as f64 <= planned as f64 * 1.03, "{peak} of {planned}");
    let larger = sight.at("larger.png");
    fs::write(&larger, large_png(9000, 9000)).unwrap();
    let model = sight.model.to_str().unwrap();
    run(["run", model, "what?", "--image", &larger]).assert_error(1, &["9000 x 9000", "scale it down"]);
}

#[test]
fn a_plan_counts_the_projector() {
    let sight = Sight::new(true);
    let plan = |model: &Path| {
        let mut command = hypura();
        command.arg("plan").arg(model).arg("--json").env("XDG_CACHE_HOME", sight.folder.path());
        let text = finish(&mut command).assert_success().stdout;
        serde_json::from_str::<Value>(&text).unwrap()["plan"]["media_bytes"].as_u64().unwrap()
    };
    assert!(plan(&sight.model) > 192 << 20);
    let blind = Sight::new(false);
    assert_eq!(plan(&blind.model), 0);
}

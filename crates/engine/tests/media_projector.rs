//! Projectors by themselves: what loads, what does not, and that nothing of it ends the program.
#![expect(clippy::unwrap_used, reason = "tests: a panic is how they fail")]

mod common;

use common::tiny;
use hypura_core::synth::{ProjectorKind, Quant, Shape};
use hypura_ggml::media::{self, MediaError, Medium, Projector, PromptPart, PromptPiece, RowPlaces};
use hypura_ggml::{LoadMode, LoadOptions, Model};
use std::fs;
use std::path::{Path, PathBuf};

const SHAPES: [Shape; 3] = [Shape::TinyLlama, Shape::TinyQwen2Vl, Shape::TinyGemma3];

fn model(path: &Path) -> Model {
    let options = LoadOptions::on_cpu(path.to_owned(), LoadMode::Measure { placements: Vec::new() });
    Model::load(&options).unwrap().fill(|_| Ok::<(), ()>(())).unwrap()
}

fn written(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("mmproj.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

fn load(path: &Path, model: &Model) -> Result<Projector, MediaError> {
    Projector::load(path, model, 1, &mut |_| true)
}

#[test]
fn every_kind_loads_and_makes_rows_that_differ_by_picture() {
    let folder = tempfile::tempdir().unwrap();
    for shape in SHAPES {
        let tiny = tiny(shape, Quant::Q4_K, 1);
        let model = model(&tiny.path);
        let path = written(&folder, &ProjectorKind::file_for(shape, 1).unwrap());
        let found = media::measure(&path).unwrap();
        assert!(found.vision && found.width == 256 && found.vision_bytes > 100_000, "{found:?}");
        assert_eq!(found.non_causal, shape == Shape::TinyGemma3);
        let projector = load(&path, &model).unwrap();
        assert_eq!(projector.facts().mrope, shape == Shape::TinyQwen2Vl);
        let rows = |shade: u8| {
            let pixels: Vec<u8> = (0..100 * 60 * 3).map(|at: usize| (at % 251) as u8 ^ shade).collect();
            let picture = Medium::picture(100, 60, &pixels, "one").unwrap();
            let text = |text| PromptPart::Text { text, control: true };
            let pieces =
                projector.tokenize(&[text("before"), PromptPart::Medium(&picture), text("after")]).unwrap();
            let chunk = pieces.iter().find_map(|piece| match piece {
                PromptPiece::Media(chunk) => Some(chunk),
                PromptPiece::Tokens(_) => None,
            });
            let chunk = chunk.expect("a picture");
            assert_eq!(chunk.id(), "one");
            let places = chunk.places(7).unwrap();
            match &places {
                RowPlaces::One(places) => assert_eq!(places.len(), chunk.rows()),
                RowPlaces::Four(places) => {
                    assert_eq!(places.len(), chunk.rows());
                    assert!(chunk.positions() < chunk.rows());
                }
            }
            assert!(chunk.rows() as u32 <= found.most_rows, "{} {found:?}", chunk.rows());
            assert_eq!(chunk.non_causal(), shape == Shape::TinyGemma3);
            projector.encode(chunk).unwrap()
        };
        let (one, two) = (rows(0), rows(0x55));
        assert_eq!(one, rows(0), "{shape}: the same picture");
        assert_ne!(one, two, "{shape}: another picture");
        assert!(one.iter().all(|number| number.is_finite()) && one.len() % 256 == 0);
    }
}

#[test]
fn what_hears_is_measured_beside_what_sees() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ProjectorKind::ALL {
        let path = written(&folder, &kind.file(256, 1).unwrap());
        let found = media::measure(&path).unwrap();
        assert_eq!((found.vision, found.audio), (kind.sees(), kind.hears()), "{kind} {found:?}");
        assert_eq!((found.vision_bytes > 0, found.audio_bytes > 0), (kind.sees(), kind.hears()), "{found:?}");
        assert_eq!((found.width, found.other_bytes), (256, 0));
        if kind.hears() {
            assert!(found.audio_any_length && found.probe_steps == 3000, "{found:?}");
            assert!(found.most_steps >= 3000 && found.most_steps < 3100, "{found:?}");
            // 40 bands, 100 times a second.
            assert!((4000..4100).contains(&found.sound_numbers), "{found:?}");
            let rows = if *kind == ProjectorKind::Omni { 750 } else { 25 };
            assert!(found.sound_rows >= rows && found.sound_rows <= rows + 10, "{found:?}");
        }
    }
}

#[test]
fn a_projector_for_wider_rows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let path = written(&folder, &ProjectorKind::Mlp.file(128, 1).unwrap());
    let error = load(&path, &model(&tiny.path)).err().unwrap().to_string();
    assert!(error.contains("256") && error.contains("128"), "{error}");
}

#[test]
fn damaged_projectors_are_errors_and_not_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = tiny(Shape::TinyLlama, Quant::Q4_K, 1);
    let model = model(&tiny.path);
    for kind in ProjectorKind::ALL {
        let good = kind.file(256, 1).unwrap();
        let (part, prefix) = if kind.sees() { ("vision", "v") } else { ("audio", "a") };
        let key = |name: &str| format!("clip.{part}.{name}");
        for (from, to) in [
            (key("block_count"), key("block_c0unt")),
            ("projector_type".to_owned(), "projector_tipe".to_owned()),
            (format!("clip.has_{part}_encoder"), format!("clip.has_{part}_enc0der")),
            ("GGUF".to_owned(), "GGUX".to_owned()),
        ] {
            let bad = replaced(&good, &from, &to);
            let path = written(&folder, &bad);
            let refused = load(&path, &model).is_err() && media::measure(&path).is_err();
            // Without its eyes it still hears.
            assert!(
                refused || (*kind == ProjectorKind::Omni && from.contains("has_vision")),
                "{kind} {from}"
            );
        }
        // A matrix of another shape ends llama.cpp's own programs while they build the graph.
        let swapped = swapped_shapes(&good, prefix);
        let path = written(&folder, &swapped);
        let error = load(&path, &model).err().expect("refused").to_string();
        assert!(error.contains("GGML_ASSERT"), "{kind} {error}");
        assert!(!error.contains(&*path.to_string_lossy()));
        assert!(media::measure(&path).is_err());
    }
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

/// The dimensions of the first `ffn_up` exchanged: 32 × 64 becomes 64 × 32.
fn swapped_shapes(bytes: &[u8], prefix: &str) -> Vec<u8> {
    let name = format!("{prefix}.blk.0.ffn_up.weight");
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() + name.len() + 4;
    let mut bytes = bytes.to_vec();
    let dims: Vec<u8> = [&bytes[at + 8..at + 16], &bytes[at..at + 8]].concat();
    bytes[at..at + 16].copy_from_slice(&dims);
    bytes
}

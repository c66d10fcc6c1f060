//! Projectors: attached to their models wherever those are, reported, and copied.

use hypura_core::gguf::Value;
use hypura_core::synth::ProjectorKind;
use hypura_store::{Capability, CreateRequest, ModelEntry};
use serde_json::json;
use std::path::{Path, PathBuf};

use super::kit::{Machine, gguf, put};

fn projector(seed: u64) -> Vec<u8> {
    ProjectorKind::Mlp.file(256, seed).unwrap()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn sees(entry: &ModelEntry) -> Option<String> {
    assert_eq!(entry.can(Capability::Vision), entry.usable_projector().is_some());
    entry.usable_projector().map(|path| name_of(path))
}

#[test]
fn all_models_of_a_repository_get_its_best_projector() {
    let machine = Machine::new();
    let repo = "models--org--Gemma-GGUF";
    machine.hugging_face(repo, "gemma-Q4_K_M.gguf", &gguf(&[]));
    machine.hugging_face(repo, "gemma-Q8_0.gguf", &gguf(&[("x", Value::U32(1))]));
    machine.hugging_face(repo, "mmproj-BF16.gguf", &projector(1));
    machine.hugging_face(repo, "mmproj-F16.gguf", &projector(2));
    machine.hugging_face("models--org--Blind-GGUF", "blind-Q8_0.gguf", &gguf(&[]));
    put(&machine.at("lmstudio/pub/Model-GGUF/model-Q4_K_M.gguf"), gguf(&[]));
    put(&machine.at("lmstudio/pub/Model-GGUF/mmproj-model-Q8_0.gguf"), projector(3));
    let of = |name: &str| sees(&machine.store().resolve(name).unwrap());
    for tag in ["Q4_K_M", "Q8_0"] {
        assert_eq!(of(&format!("hf.co/org/Gemma-GGUF:{tag}")).as_deref(), Some("mmproj-F16.gguf"));
    }
    assert_eq!(of("hf.co/org/Blind-GGUF:Q8_0"), None);
    assert_eq!(of("pub/Model-GGUF").as_deref(), Some("mmproj-model-Q8_0.gguf"));
    let entry = machine.store().resolve("hf.co/org/Gemma-GGUF:Q8_0").unwrap();
    assert!(entry.size > projector(2).len() as u64);
    assert_eq!(entry.details().families, ["llama", "clip"]);
    assert_eq!(machine.names().len(), 4, "projectors are no models: {:?}", machine.names());
}

#[test]
fn a_given_file_sees_by_the_projector_beside_it_or_by_the_one_that_is_named() {
    let machine = Machine::new();
    let model = machine.at("models/a-Q4_0.gguf");
    put(&model, gguf(&[]));
    put(&machine.at("models/mmproj-F16.gguf"), projector(1));
    put(&machine.at("elsewhere/p.gguf"), projector(2));
    let store = || machine.store().with_files([model.clone()]);
    assert_eq!(sees(&store().resolve("a-Q4_0").unwrap()).as_deref(), Some("mmproj-F16.gguf"));
    let named = store().with_projector(Some(machine.at("elsewhere/p.gguf")));
    assert_eq!(sees(&named.resolve("a-Q4_0").unwrap()).as_deref(), Some("p.gguf"));
    put(&machine.at("models/b-Q4_0.gguf"), gguf(&[]));
    assert_eq!(sees(&store().resolve("a-Q4_0").unwrap()), None, "its owner is no longer known");
}

#[test]
fn a_model_of_ollama_has_its_projector_and_so_has_what_is_made_of_it() {
    let machine = Machine::new();
    let bytes = projector(1);
    machine.ollama("registry.ollama.ai/library/llava/7b", &[("model", &gguf(&[])), ("projector", &bytes)]);
    let entry = machine.store().resolve("llava:7b").unwrap();
    assert!(entry.can(Capability::Vision));
    let show = serde_json::to_value(machine.store().show("llava:7b", false).unwrap()).unwrap();
    assert_eq!(show["projector_info"]["clip.projector_type"], "mlp");
    assert_eq!(show["projector_info"]["general.architecture"], "clip");
    assert!(show["capabilities"].as_array().unwrap().contains(&json!("vision")));
    let request: CreateRequest =
        serde_json::from_value(json!({"model": "mine", "from": "llava:7b", "system": "Look."})).unwrap();
    machine.store().create(&request, &mut |_| {}).unwrap();
    let mine = machine.store().resolve("mine").unwrap();
    assert_eq!(mine.usable_projector().map(|path| std::fs::read(path).unwrap()), Some(bytes));
}

#[test]
fn a_projector_is_added_to_a_model_or_comes_with_its_files() {
    let machine = Machine::new();
    machine.ollama_llama();
    let model = gguf(&[("x", Value::U32(9))]);
    let (model, eyes) = (machine.upload(&model), machine.upload(&projector(1)));
    let make = |body: serde_json::Value| {
        let request: CreateRequest = serde_json::from_value(body).unwrap();
        let name = machine.store().create(&request, &mut |_| {})?;
        machine.store().resolve(&name.to_string())
    };
    let both = make(json!({"model": "both", "files": {"m.gguf": model, "mmproj.gguf": eyes}})).unwrap();
    assert!(both.can(Capability::Vision) && both.files.len() == 1);
    let added = json!({"model": "added", "from": "llama3.2:3b", "files": {"mmproj.gguf": eyes}});
    let added = make(added).unwrap();
    assert!(added.can(Capability::Vision));
    assert_eq!(added.settings.system.as_deref(), Some("Be brief."));
    let no_projector = json!({"model": "x", "from": "llama3.2:3b", "files": {"m.gguf": model}});
    assert_eq!(make(no_projector).unwrap_err().status(), 400);
    let two = json!({"model": "x", "from": "llama3.2:3b", "files": {"m.gguf": model, "p.gguf": eyes}});
    assert_eq!(make(two).unwrap_err().status(), 400);
}

#[test]
fn what_is_no_projector_gives_no_sight() {
    let machine = Machine::new();
    let model: PathBuf = machine.at("m/a.gguf");
    put(&model, gguf(&[]));
    for bytes in [b"damaged".to_vec(), gguf(&[]), projector(1)[..200].to_vec()] {
        put(&machine.at("m/mmproj-F16.gguf"), bytes);
        let entry = machine.store().with_files([model.clone()]).resolve("a").unwrap();
        assert_eq!(sees(&entry), None);
    }
}

#[test]
fn show_a_projector_gives_the_senses_that_it_has_encoders_for() {
    let machine = Machine::new();
    let model = machine.at("m/a.gguf");
    put(&model, gguf(&[]));
    for kind in ProjectorKind::ALL {
        put(&machine.at("m/mmproj-F16.gguf"), kind.file(256, 1).unwrap());
        let entry = machine.store().with_files([model.clone()]).resolve("a").unwrap();
        assert_eq!(entry.can(Capability::Vision), kind.sees(), "{kind}");
        assert_eq!(entry.can(Capability::Audio), kind.hears(), "{kind}");
        assert!(entry.usable_projector().is_some(), "{kind}");
    }
    // An encoder that listens to a stream beside the text is of no use for prompts.
    let mut other = ProjectorKind::Omni.file(256, 1).unwrap();
    let (from, to) = (b"clip.has_vision_encoder", b"clip.has_visiom_encoder");
    let at = other.windows(from.len()).position(|window| window == from).unwrap();
    other[at..at + to.len()].copy_from_slice(to);
    put(&machine.at("m/mmproj-F16.gguf"), other);
    let entry = machine.store().with_files([model.clone()]).resolve("a").unwrap();
    assert!(entry.can(Capability::Audio) && !entry.can(Capability::Vision));
}

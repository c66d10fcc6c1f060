//! What is found where, under which names.

use hypura_core::gguf::Value;
use hypura_store::{Capability, Digest, Origin, StoreError};
use std::fs;
use std::path::PathBuf;

use super::kit::{Machine, gguf, gguf_shards, put};

#[test]
fn a_model_of_ollama_is_read_in_place() {
    let machine = Machine::new();
    let manifest = machine.ollama_llama();
    let before = machine.contents("ollama");
    let entry = machine.store().resolve("LLAMA3.2:3B").unwrap();
    assert_eq!(entry.name.to_string(), "llama3.2:3b");
    assert_eq!(entry.origin, Origin::Ollama);
    assert_eq!(entry.digest, Digest::of(manifest.as_bytes()).hex());
    assert_eq!(entry.settings.system.as_deref(), Some("Be brief."));
    assert_eq!(entry.settings.parameters["stop"][0], "<|eot|>");
    assert_eq!(entry.settings.messages[0].content, "hi");
    assert_eq!(entry.settings.licenses, ["MIT"]);
    let layers: u64 =
        fs::read_dir(machine.at("ollama/blobs")).unwrap().map(|b| b.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(entry.size, layers);
    assert!(entry.files[0].starts_with(machine.at("ollama/blobs")));
    assert_eq!(machine.store().open_path(&entry).unwrap(), entry.files[0]);
    machine.list();
    assert_eq!(machine.contents("ollama"), before, "nothing was written there");
}

#[test]
fn details_and_capabilities_come_from_the_header() {
    let machine = Machine::new();
    machine.ollama_llama();
    let entry = machine.list().models.remove(0);
    let details = serde_json::to_value(entry.details()).unwrap();
    let expected = serde_json::json!({
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "1K",
        "quantization_level": "Q4_K_M", "context_length": 8192, "embedding_length": 256,
    });
    assert_eq!(details, expected);
    assert_eq!(entry.capabilities(), [Capability::Completion, Capability::Tools]);
    assert_eq!(
        serde_json::to_value(entry.capabilities()).unwrap(),
        serde_json::json!(["completion", "tools"])
    );
}

#[test]
fn the_cache_of_hugging_face_is_known_by_repository_and_quantisation() {
    let machine = Machine::new();
    let repo = "models--unsloth--Qwen3-GGUF";
    machine.hugging_face(repo, "Qwen3-Q8_0.gguf", &gguf(&[("x", Value::U32(1))]));
    machine.hugging_face(repo, "Qwen3-Q4_K_M.gguf", &gguf(&[]));
    machine.hugging_face(repo, "mmproj-F16.gguf", &gguf(&[("x", Value::U32(2))]));
    for (index, bytes) in gguf_shards(2).iter().enumerate() {
        machine.hugging_face(repo, &format!("BF16/Qwen3-BF16-{:05}-of-00002.gguf", index + 1), bytes);
    }
    assert_eq!(
        machine.names(),
        ["hf.co/unsloth/Qwen3-GGUF:BF16", "hf.co/unsloth/Qwen3-GGUF:Q4_K_M", "hf.co/unsloth/Qwen3-GGUF:Q8_0"]
    );
    let store = machine.store();
    assert_eq!(store.resolve("hf.co/unsloth/qwen3-gguf:q8_0").unwrap().name.tag(), "Q8_0");
    assert_eq!(store.resolve("hf.co/unsloth/Qwen3-GGUF").unwrap().name.tag(), "Q4_K_M");
    assert_eq!(store.resolve("huggingface.co/unsloth/Qwen3-GGUF:Q8_0").unwrap().name.tag(), "Q8_0");
    assert!(matches!(store.resolve("hf.co/unsloth/Qwen3-GGUF:Q2_K"), Err(StoreError::NotFound(_))));
    let shards = store.resolve("hf.co/unsloth/Qwen3-GGUF:BF16").unwrap();
    assert_eq!(shards.files.len(), 2);
    assert_eq!(store.open_path(&shards).unwrap(), shards.files[0]);
}

#[test]
fn the_snapshot_of_main_counts() {
    let machine = Machine::new();
    machine.hugging_face("models--a--b", "m-Q8_0.gguf", &gguf(&[]));
    put(&machine.at("hub/models--a--b/snapshots/zzz/m-Q2_K.gguf"), gguf(&[]));
    put(&machine.at("hub/models--a--b/refs/main"), "abc123\n");
    assert_eq!(machine.names(), ["hf.co/a/b:Q8_0"]);
}

#[test]
fn lm_studio_is_known_by_publisher() {
    let machine = Machine::new();
    put(&machine.at("lmstudio/lmstudio-community/Gemma-GGUF/gemma-Q4_K_M.gguf"), gguf(&[]));
    put(&machine.at("lmstudio/a.b/odd name/x.gguf"), gguf(&[]));
    put(&machine.at("lmstudio/a.b/odd name/y.gguf"), gguf(&[]));
    assert_eq!(machine.names(), ["a-b/odd-name:x", "a-b/odd-name:y", "lmstudio-community/Gemma-GGUF:Q4_K_M"]);
    assert_eq!(machine.store().resolve("lmstudio-community/gemma-gguf").unwrap().origin, Origin::LmStudio);
}

#[test]
fn given_files_are_called_as_they_are_named_and_come_first() {
    let machine = Machine::new();
    machine.ollama("registry.ollama.ai/library/Mixtral/latest", &[("model", &gguf(&[]))]);
    let file = machine.at("Mixtral.gguf");
    put(&file, gguf(&[]));
    let store = machine.store().with_files([file.clone()]);
    let entry = store.resolve("mixtral").unwrap();
    assert_eq!((entry.origin, &entry.files), (Origin::Given, &vec![file]));
    let listing = store.list();
    assert_eq!(listing.models.len(), 1);
    assert!(listing.skipped[0].why.to_string().contains("already called"), "{:?}", listing.skipped);
}

#[test]
fn the_demo_model_has_a_name() {
    let mut machine = Machine::new();
    machine.places.demo =
        Some(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo/demo-moe-Q4_K_M.gguf")));
    let entry = machine.store().resolve("demo").unwrap();
    assert_eq!(entry.name.to_string(), "demo:latest");
    assert_eq!(entry.digest.len(), 64);
    assert!(entry.size > 1 << 20 && entry.facts.parameters > 1 << 20);
    assert!(entry.facts.template.is_some());
}

#[test]
fn names_that_are_none_and_models_that_are_nowhere() {
    let machine = Machine::new();
    let store = machine.store();
    for bad in ["", "a b", "../../etc/passwd", "x:y:z", "/etc/passwd"] {
        assert!(matches!(store.resolve(bad), Err(StoreError::InvalidName(_))), "{bad}");
    }
    let error = store.resolve("nothing").unwrap_err();
    assert_eq!((error.status(), error.to_string()), (404, "model 'nothing' not found".to_owned()));
    assert_eq!(store.resolve("a:local:cloud").unwrap_err().status(), 400);
    assert!(store.list().models.is_empty());
}

#[test]
fn the_newest_model_is_first() {
    let machine = Machine::new();
    for (name, seconds) in [("old", 1000), ("new", 3000), ("middle", 2000)] {
        machine.ollama(&format!("registry.ollama.ai/library/{name}/latest"), &[("model", &gguf(&[]))]);
        let path = machine.at(&format!("ollama/manifests/registry.ollama.ai/library/{name}/latest"));
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
    let names: Vec<String> =
        machine.list().models.iter().map(|model| model.name.model().to_owned()).collect();
    assert_eq!(names, ["new", "middle", "old"]);
}

#[test]
fn what_headers_say_is_remembered_until_a_file_changes() {
    let machine = Machine::new();
    let file = machine.at("lmstudio/a/b/m-Q8_0.gguf");
    put(&file, gguf(&[]));
    let first = machine.list().models.remove(0);
    let kept = fs::read_to_string(machine.at("cache/models.json")).unwrap();
    assert!(kept.contains(&first.digest));
    // Another process trusts what was kept, so it need not read the file.
    fs::write(
        machine.at("cache/models.json"),
        kept.replace("\"architecture\":\"llama\"", "\"architecture\":\"kept\""),
    )
    .unwrap();
    assert_eq!(machine.list().models[0].facts.architecture, "kept");
    put(&file, gguf(&[("more", Value::U32(7))]));
    let changed = machine.list().models.remove(0);
    assert_eq!(changed.facts.architecture, "llama");
    assert_ne!(changed.digest, first.digest);
    // And a broken memory is only a slow one.
    fs::write(machine.at("cache/models.json"), "{").unwrap();
    assert_eq!(machine.list().models[0].digest, changed.digest);
}

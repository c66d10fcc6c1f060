//! Broken and hostile stores: what cannot be used is skipped with a reason, and the rest continues.

use hypura_store::StoreError;
use std::fs;
use std::os::unix::fs::symlink;

use super::kit::{Machine, gguf, gguf_shards, put};

/// One good model beside the bad ones; it must stay in the list.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.ollama_llama();
    machine
}

#[track_caller]
fn assert_skipped(machine: &Machine, part: &str) {
    assert_eq!(machine.names(), ["llama3.2:3b"]);
    let reasons = machine.reasons();
    assert!(reasons.iter().any(|why| why.contains(part)), "{part:?} is not in {reasons:?}");
}

fn manifest(digest: &str, size: usize) -> String {
    let layer = |kind: &str| {
        format!(r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"{digest}","size":{size}}}"#)
    };
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, layer("config"), layer("model"))
}

const PLACE: &str = "ollama/manifests/registry.ollama.ai/library/bad/latest";

#[test]
fn manifests_that_are_no_manifests() {
    for text in ["", "{", "[]", "null", "{\"layers\":null}", "\u{feff}{}", "{\"config\":1,\"layers\":{}}"] {
        let machine = machine();
        put(&machine.at(PLACE), text);
        assert_skipped(&machine, "manifest cannot be read");
        assert!(matches!(machine.store().resolve("bad"), Err(StoreError::Broken { .. })));
    }
    let machine = machine();
    put(&machine.at(PLACE), vec![b' '; (4 << 20) + 1]);
    assert_skipped(&machine, "longer than");
}

#[test]
fn digests_lead_nowhere_but_to_blobs() {
    for digest in
        ["sha256:../../../secret", "../secret", "sha256:", "sha256-../x", "/etc/passwd", "sha512:00"]
    {
        let machine = machine();
        put(&machine.at("secret"), gguf(&[]));
        put(&machine.at(PLACE), manifest(digest, 10));
        assert_skipped(&machine, "bad digest");
    }
}

#[test]
fn blobs_that_are_missing_or_not_whole() {
    let machine = machine();
    let hex = "ab".repeat(32);
    put(&machine.at(PLACE), manifest(&format!("sha256:{hex}"), 10));
    assert_skipped(&machine, "blob abababababab is missing");
    put(&machine.at(&format!("ollama/blobs/sha256-{hex}-partial")), "");
    assert_skipped(&machine, "only partly downloaded");
    put(&machine.at(&format!("ollama/blobs/sha256-{hex}")), "short");
    assert_skipped(&machine, "has 5 bytes instead of 10");
    let error = machine.store().resolve("bad").unwrap_err();
    assert_eq!(error.status(), 500);
    assert!(!error.public_message().contains('/'), "{error}");
}

#[test]
fn blobs_that_are_no_models() {
    let machine = machine();
    machine.ollama("registry.ollama.ai/library/bad/latest", &[("model", b"not a gguf")]);
    assert_skipped(&machine, "no whole GGUF");
    let mut cut = gguf(&[]);
    cut.truncate(cut.len() - 500);
    machine.ollama("registry.ollama.ai/library/bad/latest", &[("model", &cut)]);
    assert_skipped(&machine, "");
    machine.ollama("registry.ollama.ai/library/bad/latest", &[("tensor", b"x")]);
    assert_skipped(&machine, "safetensors");
    machine.ollama("registry.ollama.ai/library/bad/latest", &[("template", b"x")]);
    assert_skipped(&machine, "no weights");
    machine.ollama("registry.ollama.ai/library/bad/latest", &[("model", &gguf(&[])), ("params", b"[1]")]);
    assert_skipped(&machine, "its params cannot be read");
    machine.ollama("registry.ollama.ai/library/bad/latest", &[("model", &gguf(&[])), ("template", b"\xff")]);
    assert_skipped(&machine, "its template is no text");
}

#[test]
fn a_model_with_an_adapter_is_refused_and_not_run_as_its_base() {
    let machine = machine();
    machine.ollama_adapted("bad");
    assert_skipped(&machine, "it has a LoRA adapter");
    let error = machine.store().resolve("bad").unwrap_err();
    assert!(matches!(error, StoreError::Broken { .. }), "{error}");
    assert!(error.public_message().contains("merge the adapter into the model first"), "{error}");
}

#[test]
fn links_in_circles_end() {
    let machine = machine();
    let folder = machine.at("ollama/manifests/registry.ollama.ai/library");
    symlink(&folder, folder.join("loop")).unwrap();
    symlink(folder.join("self"), folder.join("self")).unwrap();
    fs::create_dir_all(machine.at("lmstudio/a/b")).unwrap();
    symlink(machine.at("lmstudio"), machine.at("lmstudio/a/b/again")).unwrap();
    symlink(machine.at("lmstudio/a"), machine.at("lmstudio/a/loop")).unwrap();
    symlink("loop.gguf", machine.at("lmstudio/a/b/loop.gguf")).unwrap();
    fs::create_dir_all(machine.at("hub/models--a--b/snapshots")).unwrap();
    symlink(machine.at("hub"), machine.at("hub/models--a--b/snapshots/x")).unwrap();
    assert!(machine.names().contains(&"llama3.2:3b".to_owned()));
    assert!(machine.reasons().iter().any(|why| why.contains("leads nowhere")), "{:?}", machine.reasons());
}

#[test]
fn half_downloaded_files_of_other_stores() {
    let machine = machine();
    let shards = gguf_shards(3);
    put(&machine.at("lmstudio/a/b/m-00001-of-00003.gguf"), &shards[0]);
    put(&machine.at("lmstudio/a/b/m-00003-of-00003.gguf"), &shards[2]);
    assert_skipped(&machine, "shard 2 of 3: it is missing");
    let link = machine.hugging_face("models--a--b", "m-Q4_0.gguf", &gguf(&[]));
    fs::remove_file(fs::canonicalize(&link).unwrap()).unwrap();
    assert_skipped(&machine, "link leads nowhere");
    put(&machine.at("lmstudio/a/c/m.gguf"), &gguf(&[])[..300]);
    assert_skipped(&machine, "no whole GGUF");
    put(&machine.at("lmstudio/a/d/m.gguf.part"), "x");
    assert_eq!(machine.names(), ["llama3.2:3b"]);
}

#[test]
fn things_that_are_no_files_are_not_waited_for() {
    let machine = machine();
    fs::create_dir_all(machine.at("lmstudio/a/b/folder.gguf")).unwrap();
    fs::create_dir_all(machine.at(PLACE)).unwrap();
    assert_skipped(&machine, "it is no file");
    let pipe = machine.at("lmstudio/a/b/pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(machine.names(), ["llama3.2:3b"]);
}

#[test]
fn names_of_folders_that_are_no_names() {
    let machine = machine();
    put(&machine.at("ollama/manifests/registry.ollama.ai/library/bad name/latest"), "{}");
    assert_skipped(&machine, "no name");
    put(&machine.at("lmstudio/é/é/m.gguf"), gguf(&[]));
    assert_skipped(&machine, "cannot be made the name");
}

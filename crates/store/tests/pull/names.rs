//! What names stand for, and where it goes.

use std::fs;
use std::sync::atomic::Ordering;

use hypura_core::gguf::{Array, GgmlType, HeaderBuilder, Value};
use hypura_store::fetch::{FetchError, Network, RemoteName};
use hypura_store::{Digest, PullError, PullRequest, Store};
use serde_json::json;

use crate::kit::{Machine, model, request, shards};
use crate::server::{Hub, Model};

#[test]
fn repositories_become_snapshots_as_hugging_faces_tools_make_them() {
    let hub = Hub::start();
    let files = vec![
        ("m-Q8_0.gguf".to_owned(), model(1, 9000, 0, 1)),
        ("sub/m-Q4_K_M.gguf".to_owned(), model(2, 9000, 0, 1)),
        ("mmproj-F16.gguf".to_owned(), model(3, 5000, 0, 1)),
    ];
    let here = hub.add("r", Model::new(files));
    let machine = Machine::new();
    let mut lines = Vec::new();
    let name =
        machine.store(&hub).pulls().pull(&request("hf:o/r"), &mut |line| lines.push(json!(line)), &|| true);
    assert_eq!(name.unwrap(), "hf.co/o/r:Q4_K_M");
    let repository = machine.at("hub/models--o--r");
    let commit = fs::read_to_string(repository.join("refs/main")).unwrap();
    let link = repository.join("snapshots").join(&commit).join("sub/m-Q4_K_M.gguf");
    let hex = Digest::of(&here.file("sub/m-Q4_K_M.gguf").unwrap()).hex().to_owned();
    assert_eq!(fs::read_link(&link).unwrap().to_str().unwrap(), format!("../../../blobs/{hex}"));
    assert_eq!(fs::read(&link).unwrap(), **here.file("sub/m-Q4_K_M.gguf").unwrap());
    assert!(repository.join("snapshots").join(&commit).join("mmproj-F16.gguf").is_file());
    assert!(!machine.at("evil.gguf").exists());
    // The lines are Ollama's.
    assert_eq!(lines[0], json!({"status": "pulling manifest"}));
    let layer = lines.iter().rfind(|line| line["digest"] == format!("sha256:{hex}")).unwrap();
    assert_eq!(layer["status"], format!("pulling {}", &hex[..12]));
    assert_eq!(layer["total"], layer["completed"]);
    let ends: Vec<&str> =
        lines[lines.len() - 3..].iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(ends, ["verifying sha256 digest", "writing manifest", "success"]);
    // The other one is fetched into the same snapshot, and nothing twice.
    let before = here.sent_bytes.load(Ordering::Relaxed);
    assert_eq!(machine.pull(&hub, "huggingface.co/o/r:q8_0").unwrap(), "hf.co/o/r:Q8_0");
    let sent = here.sent_bytes.load(Ordering::Relaxed) - before;
    assert_eq!(sent, here.file("m-Q8_0.gguf").unwrap().len() as u64);
    machine.check_blobs(3);
}

#[test]
fn a_new_commit_keeps_what_did_not_change() {
    let hub = Hub::start();
    let both = |name: &str| {
        vec![("m-Q8_0.gguf".to_owned(), model(1, 9000, 0, 1)), (name.to_owned(), model(2, 9000, 0, 1))]
    };
    hub.add("r", Model::new(both("m-Q4_K_M.gguf")));
    let machine = Machine::new();
    machine.pull(&hub, "hf.co/o/r:Q8_0").unwrap();
    let here = hub.add("r", Model::new(both("m-Q4_K_S.gguf")));
    // Another commit, and the larger file as it was.
    here.change();
    let q8 = model(1, 9000, 0, 1);
    here.files.lock().unwrap()[0].1 = std::sync::Arc::new(q8);
    machine.pull(&hub, "hf.co/o/r:Q4_K_S").unwrap();
    let mut names: Vec<String> =
        machine.store(&hub).list().models.iter().map(|entry| entry.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["hf.co/o/r:Q4_K_S", "hf.co/o/r:Q8_0"]);
}

#[test]
fn registries_get_a_token_and_their_manifests_are_kept_as_they_are() {
    let hub = Hub::start();
    let mut here = Model::new(shards(4, 6000, 2));
    here.token = Some("of-the-authority".to_owned());
    let here = hub.add("r", here);
    let machine = Machine::new();
    let name = format!("http://{}/o/r:latest", hub.host());
    assert_eq!(machine.pull(&hub, &name).unwrap(), format!("{}/o/r:latest", hub.host()));
    assert_eq!(hub.leaks(), 0, "the token went to the other host");
    machine.check_blobs(3);
    let entry = machine.store(&hub).resolve(&format!("{}/o/r", hub.host())).unwrap();
    assert_eq!(entry.files.len(), 2);
    let manifest = machine.at(&format!("own/manifests/{}/o/r/latest", hub.host()));
    assert!(manifest.is_file());
    // Once more: nothing is fetched.
    let before = here.sent_bytes.load(Ordering::Relaxed);
    machine.pull(&hub, &name).unwrap();
    assert_eq!(here.sent_bytes.load(Ordering::Relaxed), before);
    // Deleting it takes the blobs along.
    machine.store(&hub).delete(&format!("{}/o/r", hub.host())).unwrap();
    machine.check_blobs(0);
}

#[test]
fn blobs_of_ollamas_store_are_linked_and_not_fetched() {
    let hub = Hub::start();
    let here = hub.add("r", Model::new(shards(4, 6000, 1)));
    let machine = Machine::new();
    let bytes = here.file("m-Q4_K_M.gguf").unwrap();
    let blob = machine.at(&format!("ollama/blobs/sha256-{}", Digest::of(&bytes).hex()));
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(&blob, &**bytes).unwrap();
    let before = machine.files("ollama");
    machine.pull(&hub, &format!("{}/o/r", hub.host())).unwrap();
    // The config is all that crossed the network.
    assert!(here.sent_bytes.load(Ordering::Relaxed) < 200);
    assert_eq!(machine.files("ollama"), before);
}

#[test]
fn a_url_becomes_a_model_of_our_own_store() {
    let hub = Hub::start();
    let here = hub.add("r", Model::new(shards(4, 30_000, 1)));
    let machine = Machine::new();
    let url = format!("{}/plain/r/m-Q4_K_M.gguf?download=true", hub.address);
    assert_eq!(machine.pull(&hub, &url).unwrap(), "m-Q4_K_M:latest");
    let entry = machine.store(&hub).resolve("m-Q4_K_M").unwrap();
    assert_eq!(fs::read(&entry.files[0]).unwrap(), **here.file("m-Q4_K_M.gguf").unwrap());
    assert!(machine.files("own/partial").is_empty());
}

#[test]
fn tokens_go_to_hugging_face_and_to_nobody_else() {
    let hub = Hub::start();
    let mut here = Model::new(shards(4, 30_000, 1));
    here.token = Some("hf_secret".to_owned());
    hub.add("r", here);
    let mut machine = Machine::new();
    let refused = machine.pull(&hub, "hf.co/o/r").unwrap_err().to_string();
    assert!(refused.contains("401") && refused.contains("HF_TOKEN"), "{refused}");
    machine.token = Some("hf_secret".to_owned());
    machine.pull(&hub, "hf.co/o/r").unwrap();
    assert_eq!(hub.leaks(), 0);
}

#[test]
fn what_is_installed_is_enough_where_nobody_can_be_asked() {
    let hub = Hub::start();
    hub.add("r", Model::new(shards(4, 6000, 1)));
    let machine = Machine::new();
    machine.pull(&hub, "hf.co/o/r").unwrap();
    let offline = Store::new(machine.places()).with_network(Network::offline());
    let mut lines = Vec::new();
    let name =
        offline.pulls().pull(&request("hf.co/o/r"), &mut |line| lines.push(line.status), &|| true).unwrap();
    assert_eq!((name.as_str(), lines.last().map(String::as_str)), ("hf.co/o/r:Q4_K_M", Some("success")));
    let missing = offline.pulls().pull(&request("hf.co/o/other"), &mut |_| {}, &|| true).unwrap_err();
    assert!(matches!(missing, PullError::Find(FetchError::Offline(_))), "{missing}");
}

#[test]
fn what_is_nowhere_and_what_is_not_safe_is_told() {
    let hub = Hub::start();
    let machine = Machine::new();
    let told = |name: &str| machine.pull(&hub, name).unwrap_err().to_string();
    assert!(told("hf.co/o/none").contains("404"), "{}", told("hf.co/o/none"));
    let missing = told(&format!("{}/o/none", hub.host()));
    assert!(missing.starts_with("pull model manifest: ") && missing.contains("not found"), "{missing}");
    assert!(told("http://example.invalid/o/r").contains("insecure protocol http"));
    assert!(told("a b").contains("invalid model name"));
    assert!(machine.files("").is_empty());
}

#[test]
fn a_list_of_files_tells_all_quantisations() {
    let hub = Hub::start();
    let mut files = shards(1, 6000, 3);
    files.push(("m-Q2_K.gguf".to_owned(), model(5, 2000, 0, 1)));
    hub.add("r", Model::new(files));
    let machine = Machine::new();
    let store = machine.store(&hub);
    let found = store.pulls().remote().find(&RemoteName::parse("hf.co/o/r").unwrap(), false).unwrap();
    let variants: Vec<(&str, usize)> =
        found.variants.iter().map(|variant| (variant.tag.as_str(), variant.files.len())).collect();
    assert_eq!(variants, [("Q2_K", 1), ("Q4_K_M", 3)]);
    let room = store.pulls().room_for(&found).unwrap();
    assert_eq!(room.missing_bytes, found.bytes());
    // Nothing was written for that.
    assert!(machine.files("").is_empty());
}

#[test]
fn a_request_without_room_is_refused_unless_forced() {
    let hub = Hub::start();
    let here = hub.add("r", Model::new(shards(1, 6000, 1)));
    let machine = Machine::new();
    let room = hypura_store::Room { missing_bytes: 10, free_bytes: 9 };
    assert!(room.check().unwrap_err().to_string().contains("there is no room"));
    let forced = PullRequest { force: true, ..request("hf.co/o/r") };
    machine.store(&hub).pulls().pull(&forced, &mut |_| {}, &|| true).unwrap();
    assert!(here.sent_bytes.load(Ordering::Relaxed) > 0);
}

/// A model with a long vocabulary, whose weights are of a type, and with something behind the vocabulary or
/// not.
fn quantised(ty: GgmlType, words: usize, file_type: u32, more: bool) -> Vec<u8> {
    let mut builder = HeaderBuilder::new();
    builder.set("general.architecture", "llama").set("general.file_type", file_type);
    for (key, value) in [
        ("context_length", 8192_u32),
        ("embedding_length", 256),
        ("block_count", 1),
        ("feed_forward_length", 256),
    ] {
        builder.set(format!("llama.{key}"), value);
    }
    builder.set("llama.attention.head_count", 4_u32).set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
    let word = |index: usize| format!("word number {}", index * 7919);
    builder.set("tokenizer.ggml.tokens", Value::Array(Array::String((0..words).map(word).collect())));
    builder.set("tokenizer.ggml.merges", Value::Array(Array::String((0..words).map(word).rev().collect())));
    builder.set("tokenizer.ggml.bos_token_id", 1_u32).set("tokenizer.chat_template", "t".repeat(9000));
    if more {
        builder.set("quantize.imatrix.file", "a file");
    }
    builder.tensor("token_embd.weight", &[256, words as u64], GgmlType::F16);
    for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        builder.tensor(format!("blk.0.{part}.weight"), &[256, 256], ty);
    }
    let mut out = Vec::new();
    let layout = builder.write_header(&mut out).unwrap();
    out.resize(layout.file_bytes as usize, 0);
    out
}

#[test]
fn headers_of_other_quantisations_are_read_without_their_vocabulary() {
    let hub = Hub::start();
    let words = 20_000;
    let files = [
        ("m-Q4_K_M.gguf", quantised(GgmlType::Q4_K, words, 15, true)),
        ("m-Q8_0.gguf", quantised(GgmlType::Q8_0, words, 7, false)),
        ("m-Q6_K.gguf", quantised(GgmlType::Q6_K, words, 18, true)),
        // Another vocabulary of nearly the same length: nothing is told of it.
        ("m-Q5_K_M.gguf", quantised(GgmlType::Q5_K, words + 1, 17, true)),
        ("m-F16.gguf", Vec::from(*b"no model at all")),
    ];
    let here = hub.add(
        "r",
        Model::new(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect()),
    );
    let machine = Machine::new();
    let store = machine.store(&hub);
    let remote = store.pulls().remote();
    let model = remote.find(&RemoteName::parse("hf.co/o/r").unwrap(), false).unwrap();
    let header = remote.header(&model).unwrap();
    let before = here.sent_bytes.load(Ordering::Relaxed);
    let shapes = remote.variant_shapes(&model, &header);
    let sent = here.sent_bytes.load(Ordering::Relaxed) - before;
    assert!(sent < 800 << 10, "{sent} bytes for three headers of {} KiB", (words * 40) >> 10);
    let type_of = |tag: &str| {
        let index = model.variants.iter().position(|variant| variant.tag == tag).unwrap();
        let shape = shapes[index].as_ref()?;
        Some(shape.tensors.iter().find(|tensor| tensor.info.name.contains("attn_q")).unwrap().info.ty)
    };
    assert_eq!((type_of("Q8_0"), type_of("Q6_K")), (Some(GgmlType::Q8_0), Some(GgmlType::Q6_K)));
    // That of the first is known; the others are not what they seem.
    assert_eq!((type_of("Q4_K_M"), type_of("Q5_K_M"), type_of("F16")), (None, None, None));
}

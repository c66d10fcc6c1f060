//! New models from names, blobs and files.

use hypura_core::gguf::{Array, Value};
use hypura_store::{CreateRequest, Digest, ModelEntry, StoreError};
use serde_json::{Value as Json, json};
use std::fs;

use super::kit::{JINJA, Machine, gguf, gguf_shards, put};

fn request(body: Json) -> CreateRequest {
    serde_json::from_value(body).unwrap()
}

fn create(machine: &Machine, body: Json) -> Result<(ModelEntry, Vec<String>), StoreError> {
    let mut statuses = Vec::new();
    let name = machine.store().create(&request(body), &mut |progress| statuses.push(progress.status))?;
    Ok((machine.store().resolve(&name.to_string()).unwrap(), statuses))
}

#[test]
fn a_model_from_another_takes_over_what_is_not_said() {
    let machine = Machine::new();
    machine.ollama_llama();
    let body = json!({
        "model": "mario", "from": "llama3.2:3b", "system": "You are Mario.", "parameters": {"temperature": 0.5, "num_ctx": 8192},
        "files": null, "license": null, "unknown": 1,
    });
    let (mario, statuses) = create(&machine, body).unwrap();
    assert_eq!(mario.settings.system.as_deref(), Some("You are Mario."));
    assert_eq!(
        Json::Object(mario.settings.parameters.clone()),
        json!({"stop": ["<|eot|>"], "num_ctx": 8192, "temperature": 0.5})
    );
    assert_eq!((mario.settings.licenses.len(), mario.settings.messages.len()), (1, 1));
    assert_eq!(mario.parent, "llama3.2:3b");
    assert!(mario.settings.template.as_deref().unwrap().contains(".Tools"), "inherited as it is");
    assert!(statuses.iter().any(|status| status.starts_with("creating new layer sha256:")), "{statuses:?}");
    assert_eq!(statuses[statuses.len() - 2..], ["writing manifest", "success"]);
}

/// A model with more was made, and could never be used.
#[test]
fn texts_that_nobody_reads_again_are_refused() {
    let machine = Machine::new();
    let digest = machine.upload(&gguf(&[]));
    let long = "x".repeat((16 << 20) + 1);
    for (field, kind, value) in [
        ("system", "system", json!(long)),
        ("template", "template", json!(format!("{{{{ .Prompt }}}}{long}"))),
        ("license", "license", json!([long])),
        ("messages", "messages", json!([{"role": "user", "content": long}])),
    ] {
        let mut body = json!({"name": "new", "files": {"model.gguf": digest}});
        body[field] = value;
        let refused = create(&machine, body).unwrap_err();
        assert!(matches!(refused, StoreError::BadRequest(_)), "{field}: {refused}");
        assert!(refused.to_string().contains(&format!("the {kind} of a model may have 16 MiB")), "{refused}");
        assert!(machine.store().resolve("new").is_err());
    }
}

#[test]
fn a_model_from_a_blob_with_everything() {
    let machine = Machine::new();
    let digest = machine.upload(&gguf(&[]));
    let body = json!({
        "name": "new", "files": {"model.gguf": digest}, "template": JINJA, "system": "S", "license": ["A", "B"],
        "parameters": {"stop": ["x"]}, "messages": [{"role": "user", "content": "hi"}], "quantize": "",
    });
    let (model, statuses) = create(&machine, body).unwrap();
    assert_eq!(model.settings.template.as_deref(), Some(JINJA));
    assert_eq!(model.settings.licenses, ["A", "B"]);
    assert_eq!(model.settings.messages[0].role, "user");
    assert_eq!(statuses[..2], ["parsing GGUF".to_owned(), format!("using existing layer {digest}")]);
    // The manifest is one that Ollama could read.
    let path = machine.at("own/manifests/registry.ollama.ai/library/new/latest");
    let manifest: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.ollama.image.model");
    assert_eq!(manifest["layers"][0]["digest"], digest);
    assert_eq!(model.digest, Digest::of(&fs::read(&path).unwrap()).hex());
}

#[test]
fn shards_are_one_model_and_open_under_their_names() {
    let machine = Machine::new();
    let digests: Vec<String> = gguf_shards(2).iter().map(|bytes| machine.upload(bytes)).collect();
    let files = json!({"m-00002-of-00002.gguf": digests[1], "m-00001-of-00002.gguf": digests[0]});
    let (model, _) = create(&machine, json!({"model": "big", "files": files})).unwrap();
    assert_eq!(model.files.len(), 2);
    assert_eq!(model.facts.parameters, 2 * 64);
    machine.list();
    assert!(
        !machine.at("own/shards").exists(),
        "links are made when a model is opened, not when it is listed"
    );
    let first = machine.store().open_path(&model).unwrap();
    assert!(first.ends_with("model-00001-of-00002.gguf"), "{}", first.display());
    assert_eq!(fs::read(&first).unwrap(), gguf_shards(2)[0]);
    assert_eq!(fs::read(first.with_file_name("model-00002-of-00002.gguf")).unwrap(), gguf_shards(2)[1]);
    assert_eq!(machine.store().open_path(&model).unwrap(), first, "again");
    machine.store().delete("big").unwrap();
    assert!(machine.contents("own").is_empty(), "{:?}", machine.contents("own"));
    let lone =
        json!({"model": "half", "files": {"m-00001-of-00002.gguf": machine.upload(&gguf_shards(2)[0])}});
    assert!(create(&machine, lone).unwrap_err().to_string().contains("not in GGUF format"));
}

#[test]
fn a_file_of_this_machine_is_linked() {
    let machine = Machine::new();
    let file = machine.at("somewhere/m.gguf");
    put(&file, gguf(&[]));
    let request =
        CreateRequest { model: Some("x".to_owned()), file: Some(file.clone()), ..CreateRequest::default() };
    let mut hashed = 0;
    machine.store().create(&request, &mut |progress| hashed = progress.completed.unwrap_or(hashed)).unwrap();
    assert_eq!(hashed, gguf(&[]).len() as u64);
    let entry = machine.store().resolve("x").unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(fs::read(&entry.files[0]).unwrap(), gguf(&[]), "it stays when the other name goes");
}

#[test]
fn the_cache_of_hugging_face_is_not_hashed_again() {
    let machine = Machine::new();
    machine.hugging_face("models--a--b", "m-Q8_0.gguf", &gguf(&[]));
    let (entry, statuses) = create(&machine, json!({"model": "x", "from": "hf.co/a/b:Q8_0"})).unwrap();
    assert!(!statuses.iter().any(|status| status.contains("hashing")), "{statuses:?}");
    assert!(entry.files[0].ends_with(format!("sha256-{}", Digest::of(&gguf(&[])).hex())));
}

#[test]
fn replacing_a_model_drops_what_only_it_used() {
    let machine = Machine::new();
    let first = machine.upload(&gguf(&[]));
    let second = machine.upload(&gguf(&[("x", Value::U32(1))]));
    create(&machine, json!({"model": "m", "files": {"a.gguf": first}})).unwrap();
    create(&machine, json!({"model": "M", "files": {"a.gguf": second}})).unwrap();
    assert_eq!(machine.names(), ["m:latest"]);
    let store = machine.store();
    assert_eq!(store.blob_bytes(&Digest::parse(&first).unwrap()).unwrap(), None);
    assert!(store.blob_bytes(&Digest::parse(&second).unwrap()).unwrap().is_some());
}

#[test]
fn requests_that_make_no_sense() {
    let machine = Machine::new();
    machine.ollama_llama();
    let good = machine.upload(&gguf(&[]));
    let other = machine.upload(&gguf(&[("x", Value::U32(1))]));
    let text = machine.upload(b"plain text");
    let absent = format!("sha256:{}", "0".repeat(64));
    for (body, status, part) in [
        (json!({}), 400, "invalid model name"),
        (json!({"model": "a b", "from": "llama3.2:3b"}), 400, "invalid model name"),
        (json!({"model": "x"}), 400, "neither 'from' or 'files' was specified"),
        (json!({"model": "x", "files": {}}), 400, "no files provided to convert"),
        (json!({"model": "x", "files": {"/abs.gguf": good}}), 400, "file path must be relative"),
        (json!({"model": "x", "files": {"../up.gguf": good}}), 400, "file path must be relative"),
        (json!({"model": "x", "files": {"a": "sha256:../x"}}), 400, "invalid digest format"),
        (json!({"model": "x", "files": {"a": absent}}), 404, "not found"),
        (json!({"model": "x", "files": {"a.gguf": text}}), 400, "supplied file was not in GGUF format"),
        (json!({"model": "x", "files": {"a": text}}), 400, "unknown type"),
        (json!({"model": "x", "files": {"a.bin": text}}), 400, "unknown type"),
        (json!({"model": "x", "files": {"a.safetensors": text}}), 400, "safetensors are not supported"),
        (json!({"model": "x", "from": "llama3.2:3b", "draft_quantize": "Q4_0"}), 400, "draft_quantize"),
        (json!({"model": "x", "from": "llama3.2:3b", "info": {"a": 1}}), 400, "info is not supported"),
        (json!({"model": "x", "files": {"a": good, "b": other}}), 400, "not one model"),
        (json!({"model": "x", "from": "nothing"}), 404, "model 'nothing' not found"),
        (
            json!({"model": "x", "from": "llama3.2:3b", "quantize": "Q4_K_M"}),
            400,
            "quantizing is not supported",
        ),
        (
            json!({"model": "x", "from": "llama3.2:3b", "quantization": "Q8_0"}),
            400,
            "quantizing is not supported",
        ),
        (
            json!({"model": "x", "from": "llama3.2:3b", "adapters": {"a": good}}),
            400,
            "adapters are not supported",
        ),
        (
            json!({"model": "x", "from": "llama3.2:3b", "adapters": {"a": good, "b": good}}),
            400,
            "only one adapter",
        ),
        (
            json!({"model": "x", "from": "llama3.2:3b", "template": "{{ html .Prompt }}"}),
            400,
            "template error: the function html",
        ),
    ] {
        let error = create(&machine, body.clone()).unwrap_err();
        assert_eq!(error.status(), status, "{body}: {error}");
        assert!(error.public_message().contains(part), "{body}: {error}");
    }
    assert_eq!(machine.names(), ["llama3.2:3b"]);
}

/// A header with a vocabulary of these many tokens.
fn with_vocabulary(tokens: usize) -> Vec<u8> {
    let texts = (0..tokens).map(|id| format!("t{id}")).collect();
    gguf(&[
        ("tokenizer.ggml.model", Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(texts))),
    ])
}

#[test]
fn a_draft_model_belongs_to_the_model_and_one_of_another_vocabulary_is_refused() {
    let machine = Machine::new();
    let (model, draft) = (machine.upload(&with_vocabulary(300)), machine.upload(&with_vocabulary(310)));
    let other = machine.upload(&with_vocabulary(900));
    let body =
        |draft: &str| json!({"model": "quick", "files": {"m.gguf": model}, "draft_files": {"d.gguf": draft}});
    let (made, _) = create(&machine, body(&draft)).unwrap();
    let file = made.draft.clone().unwrap();
    assert_eq!(Digest::of(&fs::read(&file).unwrap()).to_string(), draft);
    assert!(
        made.weights.contains(&file.file_name().unwrap().to_string_lossy().into_owned()),
        "it is loaded anew"
    );
    let (copy, _) = create(&machine, json!({"model": "copy", "from": "quick"})).unwrap();
    assert!(copy.draft.is_some(), "a model made of it has it, too");
    let refused = create(&machine, body(&other)).unwrap_err();
    assert!(matches!(&refused, StoreError::BadRequest(why) if why.contains("does not fit")), "{refused}");
}

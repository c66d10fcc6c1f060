//! Copy, delete, and blobs: all in our own store.

use hypura_store::{Digest, Origin, Store, StoreError, Stored, remove_leftovers};
use std::fs;

use super::kit::{Machine, gguf, put};

fn upload(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let mut blob = store.receive_blob(&digest).unwrap().unwrap();
    for part in bytes.chunks(100) {
        blob.write(part).unwrap();
    }
    assert_eq!(blob.finish().unwrap(), Stored::Created);
    digest
}

#[test]
fn what_programs_left_half_received_goes_after_a_day() {
    let machine = Machine::new();
    let store = machine.store();
    let (old, new) = (machine.at("own/incoming/1-0"), machine.at("own/incoming/2-0"));
    put(&old, "half");
    put(&new, "half");
    let days = std::time::Duration::from_secs(2 * 24 * 60 * 60);
    let file = fs::OpenOptions::new().write(true).open(&old).unwrap();
    file.set_modified(std::time::SystemTime::now() - days).unwrap();
    remove_leftovers(&store);
    assert!(!old.exists() && new.exists());
}

#[test]
fn a_copy_of_another_store_is_ours_and_shares_the_weights() {
    let machine = Machine::new();
    machine.ollama_llama();
    let before = machine.contents("ollama");
    let store = machine.store();
    store.copy("Llama3.2:3b", "mine").unwrap();
    let copy = store.resolve("mine").unwrap();
    assert_eq!(copy.origin, Origin::Own);
    assert_eq!(
        (copy.settings.system.as_deref(), copy.settings.licenses.as_slice()),
        (Some("Be brief."), &["MIT".to_owned()][..])
    );
    // The same bytes on the disk, not a copy of them.
    use std::os::unix::fs::MetadataExt as _;
    let original = store.resolve("llama3.2:3b").unwrap();
    assert_eq!(fs::metadata(&copy.files[0]).unwrap().ino(), fs::metadata(&original.files[0]).unwrap().ino());
    store.copy("mine", "MINE").unwrap();
    assert_eq!(machine.names(), ["llama3.2:3b", "mine:latest"]);
    store.delete("Mine").unwrap();
    assert_eq!(machine.names(), ["llama3.2:3b"]);
    assert!(machine.contents("own").is_empty(), "{:?}", machine.contents("own"));
    assert_eq!(machine.contents("ollama"), before);
}

#[test]
fn a_copy_has_every_layer_also_an_adapter_that_is_not_supported() {
    let machine = Machine::new();
    let manifest = machine.ollama_adapted("adapted");
    let store = machine.store();
    store.copy("adapted", "mine").unwrap();
    let path = machine.at("own/manifests/registry.ollama.ai/library/mine/latest");
    assert_eq!(fs::read_to_string(path).unwrap(), manifest);
    assert_eq!(store.blob_bytes(&Digest::of(b"GGUF of an adapter")).unwrap(), Some(18));
    assert!(store.resolve("mine").unwrap_err().to_string().contains("it has a LoRA adapter"));
    store.delete("mine").unwrap();
    assert!(machine.contents("own").is_empty(), "{:?}", machine.contents("own"));
}

#[test]
fn a_copy_of_a_model_whose_blobs_are_missing_is_refused_and_names_nothing() {
    let machine = Machine::new();
    machine.ollama_llama();
    let blob = machine.at(&format!("ollama/blobs/sha256-{}", Digest::of(b"MIT").hex()));
    fs::remove_file(blob).unwrap();
    let error = machine.store().copy("llama3.2:3b", "mine").unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
    assert!(machine.names().is_empty() && !machine.at("own/manifests").exists());
}

#[test]
fn blobs_stay_as_long_as_somebody_shares_them() {
    let machine = Machine::new();
    machine.ollama_llama();
    let store = machine.store();
    store.copy("llama3.2:3b", "one").unwrap();
    store.copy("one", "two").unwrap();
    assert_eq!(store.resolve("one").unwrap().digest, store.resolve("two").unwrap().digest);
    store.delete("one").unwrap();
    assert_eq!(store.resolve("two").unwrap().settings.system.as_deref(), Some("Be brief."));
    store.delete("two").unwrap();
    assert!(machine.contents("own").is_empty());
}

#[test]
fn models_of_others_are_not_deleted() {
    let machine = Machine::new();
    machine.ollama_llama();
    put(&machine.at("lmstudio/a/b/m.gguf"), gguf(&[]));
    for (name, part) in
        [("llama3.2:3b", "belongs to Ollama: delete it with `ollama rm`"), ("a/b", "belongs to LM Studio")]
    {
        let error = machine.store().delete(name).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.status(), 400);
    }
    assert_eq!(machine.names().len(), 2);
}

#[test]
fn wrong_names_have_the_words_of_ollama() {
    let machine = Machine::new();
    let store = machine.store();
    let text = |result: Result<(), StoreError>| {
        let error = result.unwrap_err();
        (error.status(), error.to_string())
    };
    assert_eq!(text(store.delete("x y")), (400, "name \"x y\" is invalid".to_owned()));
    assert_eq!(text(store.delete("x")), (404, "model 'x' not found".to_owned()));
    assert_eq!(text(store.copy("", "b")), (400, "source \"\" is invalid".to_owned()));
    assert_eq!(text(store.copy("a", "../b")), (400, "destination \"../b\" is invalid".to_owned()));
    assert_eq!(store.copy("a", "b").unwrap_err().status(), 404);
}

#[test]
fn a_broken_model_can_be_deleted() {
    let machine = Machine::new();
    put(&machine.at("own/manifests/registry.ollama.ai/library/bad/latest"), "{");
    machine.store().delete("bad").unwrap();
    assert!(machine.reasons().is_empty());
}

#[test]
fn blobs_arrive_whole_or_not_at_all() {
    let machine = Machine::new();
    let store = machine.store();
    let digest = upload(&store, &gguf(&[]));
    assert_eq!(store.blob_bytes(&digest).unwrap(), Some(gguf(&[]).len() as u64));
    assert!(store.receive_blob(&digest).unwrap().is_none(), "it is there already");

    let other = Digest::of(b"something else");
    let mut blob = store.receive_blob(&other).unwrap().unwrap();
    blob.write(b"not that").unwrap();
    let error = blob.finish().unwrap_err();
    let expected = format!("digest mismatch, expected \"{other}\", got \"{}\"", Digest::of(b"not that"));
    assert_eq!((error.status(), error.to_string()), (400, expected));
    let mut aborted = store.receive_blob(&other).unwrap().unwrap();
    aborted.write(b"some").unwrap();
    drop(aborted);
    assert_eq!(store.blob_bytes(&other).unwrap(), None);
    assert_eq!(machine.contents("own").len(), 1, "only the first blob");
}

#[test]
fn two_uploads_of_one_blob_do_not_disturb_each_other() {
    let machine = Machine::new();
    let store = machine.store();
    let digest = Digest::of(b"abcdef");
    let mut first = store.receive_blob(&digest).unwrap().unwrap();
    let mut second = store.receive_blob(&digest).unwrap().unwrap();
    first.write(b"abc").unwrap();
    second.write(b"abcdef").unwrap();
    second.finish().unwrap();
    first.write(b"def").unwrap();
    first.finish().unwrap();
    assert_eq!(store.blob_bytes(&digest).unwrap(), Some(6));
    assert_eq!(machine.contents("own").len(), 1);
}

#[test]
fn without_a_home_nothing_can_be_stored() {
    let mut machine = Machine::new();
    machine.places.own = None;
    machine.ollama_llama();
    let error = machine.store().copy("llama3.2:3b", "x").unwrap_err();
    assert!(error.to_string().contains("HYPURA_MODELS"), "{error}");
}

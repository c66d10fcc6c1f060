//! Several programs change one store at once: no model is left with a blob that another one's end took along.

use hypura_store::{CreateRequest, StoreError};
use serde_json::json;
use std::fs::{self, File};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::kit::{Machine, gguf};

/// So long must somebody who may not go on have stood still.
const STILL: Duration = Duration::from_millis(300);

fn from_blob(name: &str, digest: &str) -> CreateRequest {
    serde_json::from_value(json!({"model": name, "files": {"m.gguf": digest}})).unwrap()
}

/// Runs `race` on a thread as soon as the creation of `new` has found its weights present, and gives it some
/// time.
fn while_naming(machine: &Machine, request: &CreateRequest, race: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let mut race = Some(race);
        let store = machine.store();
        store
            .create(request, &mut |progress| {
                if progress.status.starts_with("using existing layer")
                    && let Some(race) = race.take()
                {
                    let (sender, over) = mpsc::channel::<()>();
                    scope.spawn(move || {
                        race();
                        drop(sender);
                    });
                    // With the lock this time passes; without it the other one is done at once.
                    let _ = over.recv_timeout(STILL);
                }
            })
            .unwrap();
    });
}

#[test]
fn a_delete_does_not_take_a_blob_that_a_create_has_found() {
    let machine = Machine::new();
    let digest = machine.upload(&gguf(&[]));
    machine.store().create(&from_blob("old", &digest), &mut |_| {}).unwrap();
    while_naming(&machine, &from_blob("new", &digest), || machine.store().delete("old").unwrap());
    assert_eq!(machine.names(), ["new:latest"]);
    assert_eq!(machine.reasons(), Vec::<String>::new());
}

#[test]
fn a_model_that_is_replaced_does_not_take_a_blob_that_a_create_has_found() {
    let machine = Machine::new();
    let digest = machine.upload(&gguf(&[]));
    machine.ollama_llama();
    machine.store().create(&from_blob("old", &digest), &mut |_| {}).unwrap();
    while_naming(&machine, &from_blob("new", &digest), || {
        machine.store().copy("llama3.2:3b", "old").unwrap();
    });
    assert_eq!(machine.names(), ["llama3.2:3b", "new:latest", "old:latest"]);
    assert_eq!(machine.reasons(), Vec::<String>::new());
}

/// Holds the store's lock as another process does that is about to remove blobs.
fn other_process(machine: &Machine) -> File {
    let lock = File::options().write(true).open(machine.at("own/.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

#[test]
fn a_create_waits_for_a_delete_and_does_not_name_what_that_removed() {
    let machine = Machine::new();
    let digest = machine.upload(&gguf(&[]));
    machine.store().create(&from_blob("old", &digest), &mut |_| {}).unwrap();
    let lock = other_process(&machine);
    thread::scope(|scope| {
        let (sender, over) = mpsc::channel();
        let machine = &machine;
        let request = from_blob("new", &digest);
        scope.spawn(move || sender.send(machine.store().create(&request, &mut |_| {})).unwrap());
        over.recv_timeout(STILL).expect_err("it waits");
        fs::remove_file(machine.at(&format!("own/blobs/{}", digest.replace(':', "-")))).unwrap();
        lock.unlock().unwrap();
        let error = over.recv().unwrap().unwrap_err();
        assert!(matches!(error, StoreError::NoBlob(_)), "{error}");
    });
    assert!(!machine.names().contains(&"new:latest".to_owned()));
}

#[test]
fn copies_and_deletes_wait_for_the_lock_too() {
    let machine = Machine::new();
    machine.ollama_llama();
    machine.store().copy("llama3.2:3b", "one").unwrap();
    let lock = other_process(&machine);
    thread::scope(|scope| {
        let (sender, over) = mpsc::channel();
        let (machine, other) = (&machine, sender.clone());
        scope.spawn(move || sender.send(machine.store().copy("llama3.2:3b", "two")).unwrap());
        scope.spawn(move || other.send(machine.store().delete("one")).unwrap());
        over.recv_timeout(STILL).expect_err("they wait");
        lock.unlock().unwrap();
        over.recv().unwrap().unwrap();
        over.recv().unwrap().unwrap();
    });
    assert_eq!(machine.names(), ["llama3.2:3b", "two:latest"]);
}

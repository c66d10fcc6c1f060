//! What arrived is not fetched again: after a cancellation, with another content, beside another writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hypura_store::PullError;

use crate::kit::{Machine, model, request};
use crate::server::{Hub, Model};

fn slow(hub: &Hub, bytes: usize) -> std::sync::Arc<Model> {
    let here = hub.add("r", Model::new(vec![("m-Q4_K_M.gguf".to_owned(), model(1, bytes, 0, 1))]));
    *here.delay.lock().unwrap() = Duration::from_millis(20);
    here
}

#[test]
fn a_cancelled_pull_ends_at_once_and_is_continued() {
    let hub = Hub::start();
    let here = slow(&hub, 4 << 20);
    let mut machine = Machine::new();
    machine.settings.part_bytes = 64 << 10;
    machine.settings.request_bytes = 256 << 10;
    let enough = AtomicBool::new(false);
    let store = machine.store(&hub);
    let mut watch = |line: hypura_store::Progress| {
        enough.fetch_or(line.completed.is_some_and(|have| have > 1 << 20), Ordering::Relaxed);
    };
    let began = std::time::Instant::now();
    let end = store.pulls().pull(&request("hf.co/o/r"), &mut watch, &|| !enough.load(Ordering::Relaxed));
    assert!(matches!(end, Err(PullError::Cancelled)), "{end:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let partial = store.pulls().partials().remove(0);
    assert!(partial.have_bytes >= 512 << 10, "{partial:?}");
    *here.delay.lock().unwrap() = Duration::ZERO;
    drop(store);
    hub.wait_until_left();
    here.ranges.lock().unwrap().clear();
    machine.pull(&hub, "hf.co/o/r").unwrap();
    let asked: usize = here.ranges.lock().unwrap().iter().map(|(first, last)| last + 1 - first).sum();
    assert_eq!(asked as u64, partial.bytes - partial.have_bytes);
    machine.check_blobs(1);
}

#[test]
fn partial_files_are_removed_when_asked_and_never_under_a_writer() {
    let hub = Hub::start();
    slow(&hub, 4 << 20);
    let machine = Machine::new();
    let (stop, begun) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut watch = |line: hypura_store::Progress| {
                begun.fetch_or(line.completed.is_some(), Ordering::Relaxed);
            };
            let end = machine
                .store(&hub)
                .pulls()
                .pull(&request("hf.co/o/r"), &mut watch, &|| !stop.load(Ordering::Relaxed));
            assert!(matches!(end, Err(PullError::Cancelled)), "{end:?}");
        });
        while !begun.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let store = machine.store(&hub);
        assert!(store.pulls().partials()[0].busy);
        assert_eq!(store.pulls().remove_partials(Some("hf.co/o/r:Q4_K_M")).unwrap(), (0, 1));
        stop.store(true, Ordering::Relaxed);
    });
    let store = machine.store(&hub);
    assert_eq!(store.pulls().remove_partials(Some("hf.co/o/other:Q4_K_M")).unwrap(), (0, 0));
    assert_eq!(store.pulls().remove_partials(Some("hf:o/r:q4_k_m")).unwrap(), (1, 0));
    assert!(store.pulls().partials().is_empty());
    assert!(!machine.files("hub").iter().any(|path| path.to_str().unwrap().contains(".part")));
}

#[test]
fn a_partial_file_from_a_url_is_told_apart_and_continued_by_that_url() {
    let hub = Hub::start();
    let here = slow(&hub, 1 << 20);
    let machine = Machine::new();
    let url = format!("{}/plain/r/m-Q4_K_M.gguf?token=secret", hub.address);
    let enough = AtomicBool::new(false);
    let mut watch = |line: hypura_store::Progress| {
        enough.fetch_or(line.completed.is_some_and(|have| have > 1 << 18), Ordering::Relaxed);
    };
    let store = machine.store(&hub);
    let end = store.pulls().pull(&request(&url), &mut watch, &|| !enough.load(Ordering::Relaxed));
    assert!(matches!(end, Err(PullError::Cancelled)), "{end:?}");
    let partial = store.pulls().partials().remove(0);
    assert!(partial.is_of_url && partial.model == "m-Q4_K_M:latest", "{partial:?}");
    let kept =
        machine.files("own").into_iter().filter(|path| path.extension().is_some_and(|end| end == "parts"));
    for journal in kept {
        assert!(!std::fs::read_to_string(&journal).unwrap().contains("secret"), "a URL may hold one");
    }
    *here.delay.lock().unwrap() = Duration::ZERO;
    drop(store);
    hub.wait_until_left();
    here.ranges.lock().unwrap().clear();
    machine.pull(&hub, &url).unwrap();
    // Its first byte is asked for to learn its length.
    let ranges = here.ranges.lock().unwrap().clone();
    let asked: usize =
        ranges.iter().filter(|range| **range != (0, 0)).map(|(first, last)| last + 1 - first).sum();
    assert_eq!(asked as u64, partial.bytes - partial.have_bytes);
}

//! Several who want the same files make one download of it, and one that goes away takes nobody along.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hypura_store::PullError;

use crate::kit::{Machine, model, request};
use crate::server::{Hub, Model};

/// A file of 32 parts, each sent after a while.
fn slow(delay: Duration) -> (Hub, Arc<Model>, Machine) {
    let hub = Hub::start();
    let here = hub.add("r", Model::new(vec![("m-Q4_K_M.gguf".to_owned(), model(1, 2 << 20, 0, 1))]));
    *here.delay.lock().unwrap() = delay;
    let mut machine = Machine::new();
    machine.settings.part_bytes = 64 << 10;
    (hub, here, machine)
}

#[test]
fn two_who_want_the_same_file_make_one_download() {
    let (hub, here, machine) = slow(Duration::from_millis(10));
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = 0;
                let mut watch = |line: hypura_store::Progress| {
                    let have = line.completed.unwrap_or(last);
                    assert!(have >= last, "progress goes on");
                    if have > last && have < line.total.unwrap_or(0) {
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                    last = have;
                };
                machine.store(&hub).pulls().pull(&request("hf.co/o/r"), &mut watch, &|| true).unwrap();
            });
        }
    });
    let whole = here.file("m-Q4_K_M.gguf").unwrap().len() as u64;
    assert_eq!(here.sent_bytes.load(Ordering::Relaxed), whole);
    assert!(seen.load(Ordering::Relaxed) > 10, "all three see progress");
    machine.check_blobs(1);
}

#[test]
fn one_that_goes_away_takes_nobody_along() {
    let (hub, here, machine) = slow(Duration::from_millis(20));
    let begun = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let enough = AtomicBool::new(false);
            let mut watch = |line: hypura_store::Progress| {
                let have = line.completed.unwrap_or(0);
                begun.fetch_or(have > 0, Ordering::Relaxed);
                enough.fetch_or(have > 512 << 10, Ordering::Relaxed);
            };
            let store = machine.store(&hub);
            store.pulls().pull(&request("hf.co/o/r"), &mut watch, &|| !enough.load(Ordering::Relaxed))
        });
        while !begun.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = scope.spawn(|| machine.pull(&hub, "hf.co/o/r"));
        assert!(matches!(first.join().unwrap(), Err(PullError::Cancelled)));
        second.join().unwrap().unwrap();
    });
    machine.check_blobs(1);
    // What the first one had is used: at most a request of each connection comes twice.
    let whole = here.file("m-Q4_K_M.gguf").unwrap().len() as u64;
    let sent = here.sent_bytes.load(Ordering::Relaxed);
    assert!(sent < whole + whole / 2, "{sent} of {whole}");
}

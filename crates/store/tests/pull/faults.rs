//! Servers that fail: every pull ends in right bytes or in a clear error with what arrived kept, and goes on
//! once they are well again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hypura_core::random;
use hypura_store::PullError;

use crate::kit::{Machine, model, shards};
use crate::server::{ALL_FAULTS, Fault, Hub, Model, Plan};

/// Runs on every change; `HYPURA_PULL_SEEDS` asks for more.
const SEEDS: u64 = 120;
/// How many at a time.
const THREADS: u64 = 6;

/// The name of a model by the kind of its server.
fn name_of(hub: &Hub, id: &str, seed: u64) -> String {
    match seed % 3 {
        0 => format!("hf.co/o/{id}"),
        1 => format!("{}/o/{id}", hub.host()),
        _ => format!("{}/plain/{id}/m-Q4_K_M.gguf", hub.address),
    }
}

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    whole: AtomicU64,
    failed: AtomicU64,
    faults: AtomicU64,
}

fn run(hub: &Hub, seed: u64, tally: &Tally) {
    let id = format!("m{seed}");
    let draw = |index| random::at(seed ^ 0xfa17, index);
    let bytes = 3000 + draw(0) as usize % 90_000;
    // Files of a web server are one shard here: all its shards are looked for one by one anyway.
    let count = if seed % 3 == 2 { 1 } else { 1 + (draw(1) % 3) as u16 };
    let faults: Vec<Fault> = match draw(2) % 3 {
        0 => ALL_FAULTS.to_vec(),
        _ => vec![ALL_FAULTS[draw(3) as usize % ALL_FAULTS.len()]],
    };
    // Some servers never get well.
    let most = if draw(4) % 5 == 0 { u64::MAX } else { draw(5) % 7 };
    let percent = [20, 50, 100][draw(6) as usize % 3];
    let mut here = Model::new(shards(seed, bytes, count));
    here.plan = Plan::new(seed, &faults, percent, most).into();
    here.lfs = draw(7) % 4 != 0;
    let announced = seed % 3 == 1 || seed.is_multiple_of(3) && here.lfs;
    if !announced {
        // Without a digest nobody can see that.
        here.plan.lock().unwrap().faults.retain(|fault| *fault != Fault::WrongBytes);
    }
    let here = hub.add(&id, here);
    let machine = Machine::impatient();
    let name = name_of(hub, &id, seed);
    let began = Instant::now();
    let end = machine.pull(hub, &name);
    assert!(began.elapsed() < Duration::from_secs(60), "seed {seed} took {:?}", began.elapsed());
    let context =
        || format!("seed {seed}, {faults:?} {percent}% of {most}, {count} of {bytes}, lfs {}", here.lfs);
    match end {
        Ok(_) => tally.whole.fetch_add(1, Ordering::Relaxed),
        Err(error) => {
            let message = error.to_string();
            let told = matches!(
                error,
                PullError::GaveUp { .. }
                    | PullError::Refused { .. }
                    | PullError::Changed { .. }
                    | PullError::Mismatch { .. }
                    | PullError::Find(_)
            );
            assert!(told && message.len() > 20, "{}: {message}", context());
            assert!(!message.contains("signature"), "{}: {message}", context());
            tally.failed.fetch_add(1, Ordering::Relaxed)
        }
    };
    tally.faults.fetch_add(here.requests.load(Ordering::Relaxed), Ordering::Relaxed);
    *here.plan.lock().unwrap() = Plan::default();
    let done = machine.pull(hub, &name);
    assert!(done.is_ok(), "{}: {:?}", context(), done);
    check(&machine, &here, &context());
}

/// What is here is what the server has now, and nothing else is left.
fn check(machine: &Machine, here: &Model, context: &str) {
    let listing = hypura_store::Store::new(machine.places()).list();
    let found = listing.models.first();
    let found = found.unwrap_or_else(|| panic!("{context}: {:?}", listing.skipped));
    let files = here.files.lock().unwrap();
    assert_eq!(found.files.len(), files.len(), "{context}");
    for (path, (name, bytes)) in found.files.iter().zip(files.iter()) {
        let got = std::fs::read(path).unwrap();
        assert!(got == **bytes, "{context}: {name} has other bytes");
    }
    let left = machine.files("").into_iter().filter(|path| path.to_str().unwrap().contains(".part"));
    // Of a file that changed on the server an older one may be left, where its content is its name.
    let old = |path: &std::path::PathBuf| {
        path.to_str().unwrap().contains(hypura_store::Digest::of(&files[0].1).hex())
    };
    assert!(!left.into_iter().any(|path| old(&path)), "{context}");
}

#[test]
fn every_seed_ends_in_right_bytes_or_in_a_clear_error() {
    let seeds = std::env::var("HYPURA_PULL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let (hub, tally, next) = (Hub::start(), Tally::default(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    run(&hub, seed, &tally);
                }
            });
        }
    });
    println!("{seeds} seeds: {tally:?}");
    assert_eq!(hub.leaks(), 0);
    let whole = tally.whole.load(Ordering::Relaxed);
    assert!(whole > seeds / 2 && whole < seeds, "{tally:?}");
}

/// A server with one fault that never ends, and what is told of it.
fn fails(fault: Fault, parts: &[&str]) -> (Hub, Arc<Model>, Machine) {
    let hub = Hub::start();
    let mut here = Model::new(vec![("m-Q4_K_M.gguf".to_owned(), model(1, 50_000, 0, 1))]);
    here.plan = Plan::new(1, &[fault], 100, u64::MAX).into();
    let here = hub.add("r", here);
    let machine = Machine::impatient();
    let error = machine.pull(&hub, "hf.co/o/r").unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    (hub, here, machine)
}

#[test]
fn errors_say_what_servers_did() {
    fails(Fault::Status(500), &["m-Q4_K_M.gguf", "HTTP 500", "tried 5 times", "kept"]);
    fails(Fault::Status(429), &["HTTP 429"]);
    fails(Fault::Status(403), &["HTTP 403"]);
    fails(Fault::WrongRange, &["another part"]);
    fails(Fault::Loop, &["redirects without end"]);
    fails(Fault::WrongBytes, &["digest mismatch", "removed"]);
    fails(Fault::Drip, &["broke off"]);
}

#[test]
fn what_arrived_is_kept_when_a_server_fails_and_used_when_it_is_well_again() {
    let (hub, here, mut machine) = fails(Fault::Status(500), &["kept"]);
    machine.settings.silence = Machine::new().settings.silence;
    // Some of it arrives, and then the server dies.
    *here.plan.lock().unwrap() = Plan::new(5, &[Fault::Status(500)], 100, u64::MAX).after(6);
    assert!(machine.pull(&hub, "hf.co/o/r").is_err());
    let partials = machine.store(&hub).pulls().partials();
    assert_eq!(partials.len(), 1);
    assert_eq!(
        (partials[0].model.as_str(), partials[0].file.as_str()),
        ("hf.co/o/r:Q4_K_M", "m-Q4_K_M.gguf")
    );
    assert!(partials[0].have_bytes > 0 && !partials[0].busy, "{partials:?}");
    *here.plan.lock().unwrap() = Plan::default();
    let before = here.sent_bytes.load(Ordering::Relaxed);
    machine.pull(&hub, "hf.co/o/r").unwrap();
    let fetched = here.sent_bytes.load(Ordering::Relaxed) - before;
    let whole = here.file("m-Q4_K_M.gguf").unwrap().len() as u64;
    // The list is asked for the length of nothing here: all bytes are of the file.
    assert!(fetched <= whole - partials[0].have_bytes, "{fetched} of {whole}: {partials:?}");
    assert!(machine.store(&hub).pulls().partials().is_empty());
    machine.check_blobs(1);
}

#[test]
fn a_hundred_small_shards_arrive() {
    let hub = Hub::start();
    let here = hub.add("r", Model::new(shards(7, 600, 100)));
    let machine = Machine::new();
    machine.pull(&hub, "hf.co/o/r").unwrap();
    machine.check_blobs(100);
    check(&machine, &here, "a hundred");
}

#[test]
fn a_file_that_changes_in_the_middle_is_begun_anew() {
    for (index, name) in ["hf.co/o/r".to_owned(), String::new(), String::new()].into_iter().enumerate() {
        let hub = Hub::start();
        let mut here = Model::new(vec![("m-Q4_K_M.gguf".to_owned(), model(9, 200_000, 0, 1))]);
        here.plan = Plan::new(3, &[Fault::Change], 30, 1).into();
        let here = hub.add("r", here);
        let machine = Machine::new();
        let name = if name.is_empty() { name_of(&hub, "r", index as u64) } else { name };
        machine.pull(&hub, &name).unwrap();
        check(&machine, &here, &name);
    }
}

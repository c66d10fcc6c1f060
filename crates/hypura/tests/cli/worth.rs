//! What a worker is worth: predicted, held against what was measured, and left out where it costs time.

use hypura_core::profile::{MatmulRate, Overhead, Pattern, Profile, ReadRate, Storage, WorkerRates};
use hypura_engine::profile::{Need, Wanted, recall};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::kit::{demo, finish};
use crate::relay::{Link, link};
use crate::workers::{Pair, at};

/// Rates of all types of the demo model.
fn matmul(bytes_per_s: f64) -> Vec<MatmulRate> {
    let rate = |quant: &str| MatmulRate {
        quant: quant.to_owned(),
        decode_bytes_per_s: Some(bytes_per_s),
        expert_bytes_per_s: Some(bytes_per_s),
        prefill_flops_per_s: Some(10.0 * bytes_per_s),
        expert_prefill_flops_per_s: None,
    };
    ["q4_K", "q6_K", "q8_0", "f32"].map(rate).to_vec()
}

/// What a worker says of itself.
fn rates_json(bytes_per_s: f64) -> String {
    let rates = WorkerRates { matmul: matmul(bytes_per_s), ..WorkerRates::default() };
    serde_json::to_string(&rates).unwrap()
}

/// A machine that computes 10 GB a second and has a slow disk, whatever this one is.
fn write_profile(cache: &Path) {
    let model = demo();
    let need = Need { target: model.parent().unwrap(), threads: 2, disk: true };
    let read = |pattern| ReadRate {
        reader: "pread".to_owned(),
        pattern,
        request_bytes: 1 << 20,
        depth: 8,
        bytes_per_s: Some(2e8),
    };
    let profile = Profile {
        key: need.key(),
        matmul: matmul(1e10),
        overhead: Overhead { node_s: Some(1e-6), call_s: Some(1e-6), wake_s: Some(1e-5) },
        storage: Some(Storage {
            reads: [Pattern::Random, Pattern::Sequential].map(read).to_vec(),
            ..Storage::default()
        }),
        ..Profile::default()
    };
    recall(Some(&cache.join("hypura")), &need, Wanted::New, &mut |_| profile.clone());
}

#[test]
fn a_worker_that_would_make_it_slower_is_left_out_with_the_reason() {
    let slow_machine = Pair::start_as(&[], "127.0.0.1:0", &rates_json(1e7), &["--memory", "1GiB"]);
    let fast_machine = Pair::start_as(&[], "127.0.0.1:0", &rates_json(1e10), &["--memory", "1GiB"]);
    let slow_link = Link { delay: Duration::from_millis(100), bytes_per_s: 1e8 };
    let beyond_it = link(&fast_machine.address, slow_link);
    let cases = [
        (&slow_machine, &slow_machine.address, true),
        (&fast_machine, &beyond_it, true),
        (&fast_machine, &fast_machine.address, false),
    ];
    for (pair, address, is_left_out) in cases {
        let cache = pair.here.path().join("cache");
        write_profile(&cache);
        let of = |command: &str, flags: &[&str]| {
            let mut command_line = at(pair.here.path());
            command_line.arg(command).arg(demo()).env("XDG_CACHE_HOME", &cache);
            command_line.args(["--ctx", "128", "--threads", "2"]).args(flags);
            finish(&mut command_line).assert_success()
        };
        let alone: Value = serde_json::from_str(&of("plan", &["--json"]).stdout).unwrap();
        let bytes = |what: &str| alone["plan"][what].as_u64().unwrap();
        // Half of what could stream does.
        let memory = format!("{}MiB", (bytes("floor_bytes") + bytes("total_bytes")) >> 21);
        let flags = ["--memory", &memory, "--worker", address];
        let run = of("run", &[&["x", "-n", "2", "--temperature", "0"], &flags[..]].concat());
        let planned = of("plan", &flags).stdout;
        for text in [&run.stderr, &planned] {
            let note = text.lines().find(|line| line.contains(address.as_str())).unwrap_or_default();
            assert_eq!(note.contains("is left out: a request would take"), is_left_out, "{address}: {text}");
            assert_eq!(text.contains(&format!("{address} computes")), !is_left_out, "{address}: {text}");
        }
    }
}

#[test]
#[ignore = "#19: needs a large dense model (HYPURA_LINK_MODEL), a quiet machine and some minutes"]
fn a_prediction_over_a_gigabit_link_is_within_a_fifth() {
    let model = std::env::var("HYPURA_LINK_MODEL").unwrap();
    let variable = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let (here, there) = (variable("HYPURA_LINK_HERE", "1300MiB"), variable("HYPURA_LINK_THERE", "2GiB"));
    let flags = ["--memory", &there, "--threads", "1", "--cache", "0"];
    let pair = Pair::start_as(&[], "127.0.0.1:0", "", &flags);
    let gigabit = Link { delay: Duration::from_micros(100), bytes_per_s: 1.25e8 };
    let address = link(&pair.address, gigabit);
    let of = |command: &str, flags: &[&str]| {
        let mut command_line = at(pair.here.path());
        command_line.arg(command).args(flags).arg("--threads").arg("1");
        finish(&mut command_line).assert_success()
    };
    of("profile", &["--dir", &model]);
    let split = ["--ctx", "512", "--memory", &here, "--worker", &address];
    let planned: Value =
        serde_json::from_str(&of("plan", &[&[model.as_str(), "--json"], &split[..]].concat()).stdout)
            .unwrap();
    let file = pair.here.path().join("stats.json");
    let answer = ["-n", "32", "--ignore-eos", "--temperature", "0", "--stats-json", file.to_str().unwrap()];
    let run = of("run", &[&[model.as_str(), "x"], &split[..], &answer].concat());
    let stats: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let predicted = planned["prediction"]["decode"]["tokens_per_s"]["mid"].as_f64().unwrap();
    let measured = stats["decode_tps"].as_f64().unwrap();
    println!("{}", run.stderr);
    println!("{}\n{}", planned["prediction"], planned["plan"]["workers"]);
    println!("predicted {predicted:.3}, measured {measured:.3}: {:.2}", predicted / measured);
    assert!((0.8..1.25).contains(&(predicted / measured)), "{predicted} and {measured} tokens a second");
}

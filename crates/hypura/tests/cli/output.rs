//! What the program writes where: the answer, the summary, the statistics.

use crate::kit::{Finished, demo, hypura, run, stats, wait};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

#[test]
fn the_answer_is_on_stdout_and_the_summary_on_stderr() {
    let finished = run(["run", "demo", "What is a lynx?", "--temperature", "0"]).assert_success();
    assert!(finished.stdout.starts_with("A lynx is a kind of wildcat"), "{finished:?}");
    assert!(finished.stdout.ends_with('\n') && !finished.stdout.contains("tok/s"), "{finished:?}");
    for part in ["tok/s", "full-resident", "memory", "bound by"] {
        assert!(finished.stderr.contains(part), "{part}: {finished:?}");
    }
    assert!(!finished.stderr.contains('\u{1b}'), "colours away from a terminal: {finished:?}");
}

#[test]
fn the_summary_of_streaming_tells_hits_bytes_memory_and_what_bound_it() {
    let flags = ["--residency", "stream", "--stream-cache", "33%", "-n", "8"];
    let finished = run(["run", "demo", "What is a lynx?"].iter().chain(&flags)).assert_success();
    for part in ["expert-streaming", "% hits", "read per token", "memory", "bound by"] {
        assert!(finished.stderr.contains(part), "{part}: {finished:?}");
    }
}

#[test]
fn verbose_tells_the_plan_the_tiers_and_the_seed() {
    let flags = ["--residency", "stream", "-n", "4", "--verbose", "--seed", "77"];
    let finished = run(["run", "demo", "hi"].iter().chain(&flags)).assert_success();
    for part in ["RAM", "NVMe", "slots", "reader", "seed         77", "prefill", "decode", "token times"] {
        assert!(finished.stderr.contains(part), "{part}: {finished:?}");
    }
}

#[test]
fn the_fields_of_the_statistics() {
    let stats = stats(&demo(), &["-n", "3"], "hi");
    let mut fields: Vec<&str> = stats.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let expected = [
        "architecture",
        "bound_by",
        "bytes_read",
        "bytes_read_decode",
        "bytes_read_kernel",
        "bytes_read_load",
        "bytes_read_per_token",
        "bytes_read_prefill",
        "cached_fraction",
        "compute_bytes",
        "compute_ms",
        "context",
        "decode",
        "decode_ms",
        "decode_tps",
        "device",
        "device_bytes",
        "device_layers",
        "evictions",
        "experts_hit",
        "experts_missed",
        "finish",
        "floor_bytes",
        "generated_tokens",
        "hit_rate",
        "kernels",
        "kv_bytes",
        "load_ms",
        "logits_hash",
        "memory_budget_bytes",
        "mode",
        "model",
        "notes",
        "peak_rss_bytes",
        "planned_bytes",
        "policy",
        "predictions",
        "prefill",
        "prefill_ms",
        "prefill_tps",
        "prompt_tokens",
        "read_stall_ms",
        "reader",
        "resident_bytes",
        "reused_tokens",
        "routes",
        "slot_bytes",
        "slots",
        "speculation",
        "streamable_bytes",
        "threads",
        "threads_used",
        "token_ids",
        "token_ms_p50",
        "token_ms_p99",
        "ttft_ms",
        "ubatch",
        "workers",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn what_became_of_predictions_adds_up() {
    let flags = ["-n", "60", "--residency", "stream", "--stream-cache", "40%", "--ignore-eos"];
    let stats = stats(&demo(), &flags, "What is a lynx?");
    let count = |field: &str| stats["predictions"][field].as_u64().unwrap();
    assert!(count("read") > 0 && count("used") > 0, "{}", stats["predictions"]);
    assert!(count("used") + count("wasted") <= count("read"), "{}", stats["predictions"]);
    assert!(count("late") <= count("used"), "{}", stats["predictions"]);
    assert!(count("used") <= stats["experts_missed"].as_u64().unwrap(), "{stats}");
}

#[test]
fn what_was_not_measured_is_null() {
    let resident = stats(&demo(), &["-n", "1"], "hi");
    for field in ["hit_rate", "compute_ms", "logits_hash", "reader", "policy", "decode_tps", "token_ms_p50"] {
        assert_eq!(resident[field], Value::Null, "{field}");
    }
    assert_eq!(resident["kernels"], "repacked");
    let streamed = stats(&demo(), &["-n", "4", "--residency", "stream", "--ignore-eos"], "hi");
    let number = |field: &str| streamed[field].as_f64().unwrap();
    // Three tokens were decoded (the first comes from the prompt), each through 6 layers with 4 experts.
    assert_eq!(number("experts_hit") + number("experts_missed"), 3.0 * 6.0 * 4.0);
    assert!((number("hit_rate") - number("experts_hit") / 72.0).abs() < 1e-9);
    let parts = ["bytes_read_load", "bytes_read_prefill", "bytes_read_decode"].map(number);
    assert_eq!(number("bytes_read"), parts.iter().sum::<f64>());
    assert!(number("peak_rss_bytes") > 1e6);
}

#[test]
fn statistics_on_stdout_follow_the_answer() {
    let finished = run(["run", "demo", "hi", "-n", "2", "--stats-json", "-"]).assert_success();
    let json = &finished.stdout[finished.stdout.find("{\n").unwrap()..];
    let stats: Value = serde_json::from_str(json).unwrap();
    assert_eq!(stats["generated_tokens"], 2);
}

#[test]
fn a_prompt_on_standard_input_is_the_prompt() {
    let greedy = ["--temperature", "0", "-n", "8"];
    let mut child = hypura()
        .args(["run", "demo"])
        .args(greedy)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"What is a lynx?\n").unwrap();
    let piped = Finished::of(child.wait_with_output().unwrap()).assert_success();
    let argument = run(["run", "demo", "What is a lynx?"].iter().chain(&greedy)).assert_success();
    assert_eq!(piped.stdout, argument.stdout);
}

#[test]
fn raw_leaves_the_template_out() {
    let chat = stats(&demo(), &["-n", "1"], "Rust");
    let raw = stats(&demo(), &["-n", "1", "--raw"], "Rust");
    assert!(raw["prompt_tokens"].as_u64().unwrap() < chat["prompt_tokens"].as_u64().unwrap());
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let with = |seed: &str| {
        let flags = ["-n", "16", "--temperature", "2", "--seed", seed, "--ignore-eos", "--threads", "1"];
        stats(&demo(), &flags, "Tell me something")["token_ids"].clone()
    };
    assert_eq!(with("1"), with("1"));
    assert_ne!(with("1"), with("2"));
}

#[test]
fn a_closed_output_ends_quietly() {
    let mut child = hypura()
        .args(["run", "demo", "What is a lynx?", "--ignore-eos"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    drop(stdout);
    assert_eq!(wait(&mut child), Some(0));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}

#[test]
fn versions_are_short_and_long() {
    let short = run(["-V"]).assert_success().stdout;
    assert_eq!(short, format!("hypura {}\n", env!("CARGO_PKG_VERSION")));
    let long = run(["--version"]).assert_success().stdout;
    assert!(long.starts_with(&short) && long.contains("ggml"), "{long}");
    assert!(run(["run", "--help"]).assert_success().stdout.contains("--stream-cache"));
}

//! The same bits, whatever stays in memory and whatever reads the rest.

use crate::kit::{demo, model, stats};
use hypura_core::synth::Shape;
use serde_json::Value;

const GREEDY: [&str; 7] = ["--temperature", "0", "-n", "12", "--logits-hash", "--ctx", "128"];

fn answer(path: &std::path::Path, flags: &[&str]) -> Value {
    let flags: Vec<&str> = GREEDY.iter().chain(flags).copied().collect();
    stats(path, &flags, "What is a lynx?")
}

#[track_caller]
fn assert_same(resident: &Value, streamed: &Value, flags: &[&str]) {
    assert!(resident["logits_hash"].is_string());
    for field in ["token_ids", "logits_hash", "prompt_tokens"] {
        assert_eq!(resident[field], streamed[field], "{field} with {flags:?}");
    }
}

#[test]
fn the_demo_streams_the_bits_of_a_resident_run() {
    let resident = answer(&demo(), &["--residency", "resident"]);
    assert_eq!(resident["mode"], "full-resident");
    assert_eq!(resident["kernels"], "file-layout");
    assert_eq!(resident["generated_tokens"], 12);
    let mut cases: Vec<Vec<&str>> = vec![
        vec!["--stream-cache", "33%", "--reader", "pread"],
        vec!["--stream-cache", "0%", "--reader", "pread"],
        vec!["--stream-cache", "33%", "--reader", "pread", "--cache-policy", "lru", "--poison"],
        vec!["--stream-cache", "10%", "--cache-policy", "s3fifo", "--poison"],
        vec!["--memory", "100MiB"],
    ];
    if cfg!(target_os = "linux") {
        cases.push(vec!["--stream-cache", "33%"]);
    }
    for case in &cases {
        let flags: Vec<&str> = ["--residency", "stream"].iter().chain(case).copied().collect();
        let streamed = answer(&demo(), &flags);
        assert_eq!(streamed["mode"], "expert-streaming");
        assert!(streamed["experts_missed"].as_u64().unwrap() > 0, "{flags:?} read nothing");
        assert_same(&resident, &streamed, &flags);
    }
}

#[test]
fn every_tiny_shape_streams_the_bits_of_a_resident_run() {
    for shape in Shape::ALL.iter().filter(|shape| shape.name().starts_with("tiny-")) {
        let folder = tempfile::tempdir().unwrap();
        let path = model(folder.path(), *shape, 1);
        let resident = answer(&path, &["--residency", "resident"]);
        let flags = ["--residency", "stream", "--stream-cache", "25%"];
        let streamed = answer(&path, &flags);
        assert_ne!(streamed["mode"], "full-resident");
        assert!(streamed["bytes_read_decode"].as_u64().unwrap() > 0, "{shape}");
        assert_same(&resident, &streamed, &flags);
    }
}

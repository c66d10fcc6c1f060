//! The budget bounds the whole process: the largest resident set is never more than 3% above it.

use crate::kit::{demo, model, stats};
use hypura_core::synth::Shape;
use std::path::Path;

#[track_caller]
fn assert_within(path: &Path, memory: &str, flags: &[&str]) {
    let flags = [&["--memory", memory, "-n", "24", "--ignore-eos", "--threads", "2"], flags].concat();
    let stats = stats(path, &flags, &"What is a lynx? ".repeat(16));
    let budget = stats["memory_budget_bytes"].as_f64().unwrap();
    let peak = stats["peak_rss_bytes"].as_f64().unwrap();
    assert!(peak <= 1.03 * budget, "{} with {memory}: peak {peak}, budget {budget}", path.display());
}

#[test]
fn the_demo_model_stays_within_every_budget() {
    for memory in ["90MiB", "100MiB", "120MiB"] {
        assert_within(&demo(), memory, &["--ctx", "512"]);
        assert_within(&demo(), memory, &["--ctx", "512", "--residency", "stream"]);
    }
}

#[test]
fn tiny_models_stay_within_little_more_than_their_floor() {
    let folder = tempfile::tempdir().unwrap();
    for shape in [Shape::TinyQwen3Moe, Shape::TinyLlama] {
        let path = model(folder.path(), shape, 1);
        for memory in ["60MiB", "90MiB"] {
            assert_within(&path, memory, &["--ctx", "512", "--residency", "stream"]);
        }
    }
}

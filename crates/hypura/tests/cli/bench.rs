//! `hypura bench` and `hypura iobench` from end to end, on tiny models: what is counted is right, what was
//! changed on the machine is put back. Speeds are not looked at.

use crate::kit::{finish, hypura, interrupt, model, run, wait};
use hypura_core::synth::Shape;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

/// Small work, quickly done.
const SMALL: [&str; 12] = [
    "--no-predict",
    "--prompt",
    "8",
    "--warmup",
    "1",
    "--gen",
    "4",
    "--ctx",
    "64",
    "--threads",
    "1",
    "--pairs",
];

/// Runs the benchmark and gives its report.
fn bench(model: &Path, flags: &[&str]) -> Value {
    let mut command = hypura();
    command.arg("bench").arg(model).args(SMALL).args(flags).args(["--json", "-"]);
    let finished = finish(&mut command).assert_success();
    serde_json::from_str(&finished.stdout).unwrap()
}

/// All settings of read-ahead of this machine.
fn read_aheads() -> Vec<(String, String)> {
    let Ok(devices) = fs::read_dir("/sys/block") else { return Vec::new() };
    let mut found: Vec<(String, String)> = devices
        .flatten()
        .filter_map(|device| {
            let setting = device.path().join("queue/read_ahead_kb");
            Some((device.file_name().to_string_lossy().into_owned(), fs::read_to_string(setting).ok()?))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn arms_do_the_same_work_and_count_what_they_did() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), Shape::TinyQwen3Moe, 2);
    let before = read_aheads();
    let flags = ["1", "--arm", "stream", "--stream-cache", "30%", "--against", "mmap,resident"];
    let report = bench(&model, &flags);
    assert_eq!(read_aheads(), before, "the read-ahead is as it was");
    let arms = report["arms"].as_array().unwrap();
    let names: Vec<&str> = arms.iter().map(|arm| arm["arm"].as_str().unwrap()).collect();
    assert_eq!(names, ["stream", "mmap", "resident"]);
    let modes: Vec<&str> = arms.iter().map(|arm| arm["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["expert-streaming", "mmap", "full-resident"]);
    for arm in arms {
        let runs = arm["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!((&runs[0]["prefill"]["tokens"], &runs[0]["decode"]["tokens"]), (&8.into(), &4.into()));
        assert_eq!(runs[0]["token_ms"].as_array().unwrap().len(), 4);
        assert!(runs[0]["decode"]["tps"].as_f64().unwrap() > 0.0);
    }
    let decode = &arms[0]["runs"][0]["decode"];
    let lookups = decode["experts_hit"].as_u64().unwrap() + decode["experts_missed"].as_u64().unwrap();
    let per_token = experts_per_token(&model);
    assert_eq!(
        lookups,
        4 * per_token,
        "one lookup per expert per measured token, the warm-up not among them"
    );
    assert!(decode["bytes_read"].as_u64().unwrap() > 0);
    assert_eq!(report["comparisons"].as_array().unwrap().len(), 2);
    assert_eq!(report["settings"]["work"]["warmup"], 1);
}

/// Experts that a token uses, all layers together.
fn experts_per_token(model: &Path) -> u64 {
    let source = hypura_engine::source::ModelSource::open(model).unwrap();
    source.shape.expert_layers.iter().map(|layer| u64::from(layer.used)).sum()
}

#[test]
fn a_dense_model_streams_in_its_arm_and_the_table_is_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), Shape::TinyLlama, 1);
    let json = folder.path().join("report.json");
    let mut command = hypura();
    command.arg("bench").arg(&model).args(SMALL).args(["2", "--arm", "stream", "--stream-cache", "0"]);
    command.args(["--against", "plain", "--markdown", "--json"]).arg(&json);
    let finished = finish(&mut command).assert_success();
    assert!(finished.stdout.contains(" dense-streaming |"), "{}", finished.stdout);
    assert!(finished.stdout.contains("stream / plain: decode "), "{}", finished.stdout);
    assert!(finished.stderr.contains("[4/4]"), "two rounds of two arms: {}", finished.stderr);
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let rounds =
        report["arms"][1]["runs"].as_array().unwrap().iter().map(|run| run["round"].as_u64().unwrap());
    assert_eq!(rounds.collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn llama_cpp_alone_does_the_same_work_and_takes_no_forced_routes() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path(), Shape::TinyQwen3Moe, 1);
    let report = bench(&path, &["1", "--against", "plain,mmap"]);
    for (arm, mode) in report["arms"].as_array().unwrap().iter().zip(["full-resident", "plain", "mmap"]) {
        assert_eq!(arm["mode"], mode);
        let run = &arm["runs"][0];
        assert_eq!((&run["prefill"]["tokens"], &run["decode"]["tokens"]), (&8.into(), &4.into()));
        assert_eq!(run["token_ms"].as_array().unwrap().len(), 4);
        assert!(run["decode"]["tps"].as_f64().unwrap() > 0.0 && run["reader"].is_null());
    }
    let trace = folder.path().join("trace.jsonl");
    fs::write(&trace, TRACE).unwrap();
    let mut command = hypura();
    command.arg("bench").arg(&path).args(SMALL).args(["1", "--against", "plain", "--routes"]).arg(&trace);
    let finished = finish(&mut command);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("leave plain out of --against"), "{finished:?}");
}

/// The same two experts of one layer, for ever.
const TRACE: &str = r#"{"format":"route-trace/1","model":"tiny","layers":1,"experts":8,"used":2,"expert_bytes":1000}
{"phase":"decode","layers":[[0,[0,1]]]}
"#;

#[test]
fn nothing_is_compared_when_nothing_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), Shape::TinyQwen3Moe, 1);
    let report = bench(&model, &["1", "--against", "none"]);
    assert_eq!(report["arms"].as_array().unwrap().len(), 1);
    assert_eq!(report["arms"][0]["mode"], "full-resident", "it fits, so that is what hypura does");
    assert!(report["disk"]["read_ahead"].is_null(), "no arm depended on it");
}

#[test]
fn forced_routes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), Shape::TinyQwen3Moe, 1);
    let trace = folder.path().join("trace.jsonl");
    fs::write(&trace, TRACE).unwrap();
    let trace = trace.to_str().unwrap();
    let flags = ["1", "--arm", "stream", "--stream-cache", "50%", "--against", "none", "--routes", trace];
    let report = bench(&model, &flags);
    assert_eq!(report["settings"]["routes"], trace);
    let decode = &report["arms"][0]["runs"][0]["decode"];
    assert_eq!(decode["experts_missed"], 0, "the same two experts for ever are in memory after the warm-up");
}

#[test]
fn wrong_flags_and_bad_models_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path(), Shape::TinyQwen3Moe, 1);
    let path = path.to_str().unwrap();
    run(["bench", path, "--against", "none,mmap"]).assert_error(2, &["none"]);
    run(["bench", path, "--against", "auto"]).assert_error(2, &["auto", "against itself"]);
    run(["bench", path, "--against", "nothing"]).assert_error(2, &["nothing"]);
    run(["bench", path, "--pairs", "0"]).assert_error(2, &["at least 1"]);
    run(["bench", path, "--gen", "64", "--ctx", "16", "--no-predict"])
        .assert_error(1, &["positions", "--ctx"]);
    run(["bench", path, "--routes", "/nonexistent"]).assert_error(1, &["/nonexistent"]);
    run(["bench", "/nonexistent.gguf", "--no-predict"]).assert_error(1, &["/nonexistent.gguf"]);
    run(["bench-arm", path, "--run-arm", "auto"]).assert_error(1, &["hypura bench"]);
    let short =
        ["bench", path, "--gen", "1", "--prompt", "1", "--against", "none", "--memory", "1M", "--no-predict"];
    run(short).assert_error(1, &["the auto arm failed", "--memory"]);
}

#[test]
fn ctrl_c_ends_the_benchmark_and_puts_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), Shape::TinyQwen3Moe, 1);
    let before = read_aheads();
    let mut command = hypura();
    command.arg("bench").arg(&model).args(SMALL).args(["1000", "--against", "mmap"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("[1/2000]"));
    interrupt(&child);
    let last = lines.map(Result::unwrap).last().unwrap();
    assert_eq!(wait(&mut child), Some(130));
    assert!(last.contains("stopped"), "{last}");
    assert_eq!(read_aheads(), before);
}

#[test]
fn raw_reads_are_measured_or_there_is_a_reason() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![7; 1 << 20]).unwrap();
    file.as_file().sync_all().unwrap();
    let path = file.path().to_str().unwrap();
    let flags = ["--json", "--sizes", "4K,64K", "--depths", "1,2", "--time", "1"];
    let finished = run(["iobench", path].iter().chain(&flags)).assert_success();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let cells = report["cells"].as_array().unwrap();
    let readers = if cfg!(target_os = "linux") { 2 } else { 1 };
    assert_eq!(cells.len(), 2 * 2 * 2 * readers);
    for cell in cells {
        assert_ne!(cell["bytes_per_s"].is_null(), cell["error"].is_null(), "{cell}");
    }
    run(["iobench", "/nonexistent"]).assert_error(1, &["/nonexistent"]);
    run(["iobench", path, "--sizes", "0"]).assert_error(2, &["0"]);
}

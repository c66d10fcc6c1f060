//! `hypura trace` and `hypura run --routes` as people run them: what they print, what they write, and how
//! they refuse.

use flate2::Compression;
use flate2::write::GzEncoder;
use hypura_core::synth::Shape;
use hypura_core::trace::{LayerRoutes, Phase, TraceHeader, TraceToken, TraceWriter};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

use crate::kit::{self, Finished};

const LAYERS: u32 = 4;
const EXPERTS: u32 = 16;
const GENERATED: u32 = 40;

/// One line on stderr that names all `parts`, nothing on stdout.
#[track_caller]
fn refused(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.stdout, "", "{finished:?}");
    finished.assert_error(code, parts);
}

fn replay(path: &Path, flags: &[&str]) -> Finished {
    let start = ["trace".as_ref(), "replay".as_ref(), path.as_os_str()];
    kit::run(start.into_iter().chain(flags.iter().map(|flag| flag.as_ref())))
}

/// Routes that drift: each token keeps one expert of the last one and takes a new one.
fn trace_bytes() -> Vec<u8> {
    let header = TraceHeader::new("drift", LAYERS, EXPERTS, 2, 1_000_000);
    let mut writer = TraceWriter::new(Vec::new(), header).unwrap();
    for index in 0..GENERATED + 3 {
        let phase = if index < 3 { Phase::Prefill } else { Phase::Decode };
        let chosen = |layer: u32| vec![(index + layer) % EXPERTS, (index + layer + 1) % EXPERTS];
        let layers = (0..LAYERS)
            .map(|layer| LayerRoutes { layer, experts: chosen(layer), weights: Vec::new() })
            .collect();
        writer.token(&TraceToken { phase, layers }).unwrap();
    }
    writer.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_replay_tells_hits_distance_and_speed() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "t.jsonl.gz", &gzip(&trace_bytes()));
    let flags = ["--fraction", "25,100", "--disk", "1GB/s", "--compute-ms", "2", "--json"];
    let report: Value = serde_json::from_str(&replay(&path, &flags).assert_success().stdout).unwrap();
    let trace = &report["traces"][0];
    assert_eq!((&trace["generated_tokens"], &trace["prompt_tokens"]), (&GENERATED.into(), &3.into()));
    assert_eq!(trace["routed_bytes_per_token"], 8e6);
    let rows = trace["results"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap();
        assert_eq!(number("hits") + number("misses"), f64::from(GENERATED * LAYERS * 2));
        assert!(number("behind_belady") >= 0.0, "{row}");
        let read_s = number("misses") * 1e6 / f64::from(GENERATED) / 1e9;
        assert!((number("tokens_per_s") * read_s.max(0.002) - 1.0).abs() < 1e-9, "{row}");
        assert_eq!(row["bound_by"], if read_s > 0.002 { "disk" } else { "compute" });
        // Of 16 slots, one expert of two is still there from the last token; with room for all, the 12 that
        // the prompt did not use are read once a layer.
        let full = row["slots"] == 64;
        assert!(!full || row["misses"] == 12 * LAYERS, "{row}");
    }
    let lru = rows.iter().find(|row| row["policy"] == "lru" && row["slots"] == 16).unwrap();
    assert_eq!(lru["hit_rate"], 0.5);
    assert_eq!(rows.iter().find(|row| row["policy"] == "belady").unwrap()["behind_belady"], 0.0);
}

#[test]
fn the_table_shows_what_was_asked_for() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "t.jsonl", &trace_bytes());
    let text = replay(&path, &["--policy", "lru,belady", "--cache", "16MB"]).assert_success().stdout;
    assert!(text.contains("drift") && text.contains("lru") && text.contains("belady"), "{text}");
    assert!(!text.contains("lfru") && !text.contains("tok/s"), "{text}");
    let text = replay(&path, &["--disk", "2GB/s"]).assert_success().stdout;
    assert!(text.contains("tok/s") && text.contains("50.0%") && text.contains("2.00 GB/s"), "{text}");
}

#[test]
fn the_curves_are_drawn_for_every_trace() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "t.jsonl", &trace_bytes());
    let svg = folder.path().join("curves.svg");
    let out = [path.as_os_str(), "--disk".as_ref(), "2GB/s".as_ref(), "--svg".as_ref(), svg.as_os_str()];
    replay(&path, &[]).assert_success();
    kit::run(["trace".as_ref(), "replay".as_ref(), path.as_os_str()].into_iter().chain(out)).assert_success();
    let text = fs::read_to_string(&svg).unwrap();
    assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    assert_eq!(text.matches(">hits, % of lookups<").count(), 2, "one panel a trace");
    assert_eq!(text.matches(">speed, tokens/s<").count(), 2);
    assert_eq!(text.matches("class=\"curve s0\"").count(), 5, "four panels and the legend");
}

#[test]
fn what_is_no_trace_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let good = String::from_utf8(trace_bytes()).unwrap();
    let compressed = gzip(good.as_bytes());
    let header = good.lines().next().unwrap();
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("empty", Vec::new(), "empty"),
        ("text", b"once upon a time\n".to_vec(), "line 1"),
        ("binary", vec![0, 159, 146, 150], "line 1"),
        ("version", good.replacen("route-trace/1", "route-trace/9", 1).into_bytes(), "route-trace/9"),
        ("layers", good.replacen("\"layers\":4,", "\"layers\":3,", 1).into_bytes(), "layer 3"),
        ("cut.gz", compressed[..compressed.len() / 2].to_vec(), "cut off"),
        ("header", format!("{header}\n").into_bytes(), "no tokens"),
        ("prompt", good.replace("decode", "prefill").into_bytes(), "no generated tokens"),
    ];
    for (name, bytes, part) in cases {
        let path = file(&folder, name, &bytes);
        refused(&replay(&path, &[]), 1, &[name, part]);
    }
    refused(&replay(&folder.path().join("missing"), &[]), 1, &["missing", "No such file"]);
    refused(&replay(folder.path(), &[]), 1, &["trace"]);
}

#[test]
fn wrong_flags_are_wrong_usage() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "t.jsonl", &trace_bytes());
    for flags in [
        vec!["--fraction", "0"],
        vec!["--fraction", "101"],
        vec!["--cache", "lots"],
        vec!["--cache", "1GiB", "--fraction", "5"],
        vec!["--disk", "fast"],
        vec!["--compute-ms", "5"],
        vec!["--policy", "random"],
        vec!["--ubatch", "0"],
    ] {
        refused(&replay(&path, &flags), 2, &["--help"]);
    }
    refused(&kit::run(["trace", "replay"]), 2, &["FILE"]);
    refused(&kit::run(["trace", "record", "demo", "hi"]), 2, &["--out"]);
}

/// Runs a streamed answer of a tiny model with `flags` before and after its arguments; returns its
/// statistics.
fn run(command: &[&str], model: &Path, flags: &[&OsStr], stats: &Path) -> Value {
    let fixed =
        "a prompt -n 12 --ignore-eos --temperature 0 --stream-cache 30% --residency stream --logits-hash";
    let mut arguments: Vec<&OsStr> = command.iter().map(|word| word.as_ref()).collect();
    arguments.extend([
        model.as_os_str(),
        "--raw".as_ref(),
        "--memory".as_ref(),
        "1GiB".as_ref(),
        "a prompt".as_ref(),
    ]);
    arguments.extend(fixed.split(' ').skip(2).map(OsStr::new));
    arguments.extend(["--stats-json".as_ref(), stats.as_os_str()]);
    arguments.extend(flags);
    kit::run(arguments).assert_success();
    serde_json::from_str(&fs::read_to_string(stats).unwrap()).unwrap()
}

#[test]
fn what_a_run_recorded_can_be_replayed_and_forced() {
    let folder = TempDir::new().unwrap();
    let model = kit::model(folder.path(), Shape::TinyQwen3Moe, 1);
    let (trace, stats) = (folder.path().join("own.jsonl.gz"), folder.path().join("stats.json"));
    let out = [OsStr::new("--out"), trace.as_os_str()];
    let recorded = run(&["trace", "record"], &model, &out, &stats);
    assert_eq!(recorded["routes"], Value::Null);
    assert!(fs::read(&trace).unwrap().starts_with(&[0x1f, 0x8b]));
    assert!(!folder.path().join("own.jsonl.gz.part").exists());
    let report: Value =
        serde_json::from_str(&replay(&trace, &["--json", "--fraction", "100"]).assert_success().stdout)
            .unwrap();
    // Of twelve tokens the last is chosen, but not computed.
    assert_eq!(report["traces"][0]["generated_tokens"], 11);
    let routes = [OsStr::new("--routes"), trace.as_os_str()];
    let forced = run(&["run"], &model, &routes, &stats);
    assert_eq!(forced["logits_hash"], recorded["logits_hash"]);
    assert_eq!(forced["token_ids"], recorded["token_ids"]);
    assert_eq!(forced["routes"], format!("forced from {}", trace.display()));
}

#[test]
fn a_recording_that_cannot_be_is_refused_before_the_run() {
    let folder = TempDir::new().unwrap();
    let model = kit::model(folder.path(), Shape::TinyLlama, 1);
    let model = model.to_str().unwrap();
    let out = folder.path().join("no/such/folder.jsonl");
    let record =
        |model: &str, out: &Path| kit::run(["trace", "record", model, "hi", "--out", out.to_str().unwrap()]);
    refused(&record(model, &folder.path().join("t")), 1, &["no routed experts"]);
    let moe = kit::model(folder.path(), Shape::TinyMixtral, 1);
    refused(&record(moe.to_str().unwrap(), &out), 1, &["cannot write the trace", "no/such"]);
    refused(&record(moe.to_str().unwrap(), folder.path()), 1, &["a folder"]);
}

#[test]
fn routes_that_do_not_fit_the_model_are_refused() {
    let folder = TempDir::new().unwrap();
    let model = kit::model(folder.path(), Shape::TinyMixtral, 1);
    let large = String::from_utf8(trace_bytes()).unwrap();
    let path = file(&folder, "large.jsonl", large.as_bytes());
    let words = [model.as_os_str(), "hi".as_ref(), "--raw".as_ref(), "--routes".as_ref(), path.as_os_str()];
    let flags = ["-n", "4", "--ignore-eos", "--memory", "1GiB"].map(OsStr::new);
    let finished = kit::run([OsStr::new("run")].into_iter().chain(words).chain(flags));
    refused(&finished, 1, &["does not fit", "expert 15", "8 experts"]);
}

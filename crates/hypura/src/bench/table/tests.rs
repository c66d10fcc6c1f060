//! Tests of what people see.

use super::super::disk::{Bandwidth, ReadAheadReport};
use super::super::prediction::{Prediction, PredictionError};
use super::super::report::{Disk, FORMAT, Machine, Model, Settings};
use super::super::summary::{Limits, compare, roofline, summarise, tests::run};
use super::super::work::Work;
use super::*;

fn report() -> Report {
    let limits = Limits { routed_bytes: 800_000, routed_experts: 10, resident_token_s: None };
    let runs = |mode: &str, tps: f64| -> Vec<Run> {
        (0..3)
            .map(|round| run(round, mode, tps))
            .map(|run| Run { roofline: roofline(&run, &limits, Some(1e6)), ..run })
            .collect()
    };
    let mut auto = summarise(Arm::Auto, Some(6 << 30), runs("expert-streaming", 3.0)).unwrap();
    let predicted = Prediction { decode_tps: Some(3.3), ..Prediction::default() };
    auto.prediction_error = Some(PredictionError::of(&predicted, &auto));
    auto.predicted = Some(predicted);
    let mmap = summarise(Arm::Mmap, Some(6 << 30), runs("mmap", 1.5)).unwrap();
    Report {
        format: FORMAT,
        hypura: "0.0.0".to_owned(),
        ggml: "1".to_owned(),
        unix_time_s: 0,
        machine: Machine {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpu: Some("Some CPU".to_owned()),
            processors: 2,
            memory_bytes: None,
        },
        model: Model {
            file: "m.gguf".to_owned(),
            architecture: "qwen3moe".to_owned(),
            file_bytes: 17 << 30,
            routed_bytes_per_token: 1_000_000,
        },
        settings: Settings {
            work: Work {
                prompt: 32,
                warmup: 2,
                generate: 8,
                seed: 1,
                soak_s: 0,
                moe_cache_bytes: 0,
                repeat_percent: 0,
            },
            pairs: 3,
            context: 4096,
            ubatch: 512,
            threads: 2,
            memory_bytes: None,
            memcap_bytes: Some(6 << 30),
            memcap_by: Some("cgroup v1".to_owned()),
            routes: None,
            accept: None,
        },
        disk: Disk {
            file_system: Some("ext4".to_owned()),
            device: Some("vda".to_owned()),
            rotational: Some(false),
            read_ahead: Some(ReadAheadReport { found_kb: Some(8192), used_kb: Some(128), warning: None }),
            caches: CacheState::Cold,
            measured: vec![Bandwidth {
                reader: "uring".to_owned(),
                request_bytes: 884_736,
                depth: 64,
                bytes_per_s: 2e9,
            }],
            bytes_per_s: Spread::of([2e9]),
        },
        comparisons: vec![compare(&auto, &mmap)],
        arms: vec![auto, mmap],
        warnings: vec!["something".to_owned()],
    }
}

/// The cells of the line that begins with this name.
fn cells(text: &str, name: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.trim_start_matches("| ").starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no line {name:?} in\n{text}"));
    let cells = line.trim_matches('|').split('|').skip(1);
    cells.map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn markdown_has_a_column_for_each_arm() {
    let text = render(&report(), Look::Markdown);
    assert_eq!(cells(&text, "decode tok/s"), ["3.00 (3.00–3.00)", "1.50 (1.50–1.50)"]);
    assert_eq!(cells(&text, "read per token"), ["1000 B / 1.07 KiB", "– / 1.07 KiB"]);
    assert_eq!(cells(&text, "hit rate"), ["75.0%", "75.0%"]);
    assert_eq!(cells(&text, "efficiency"), ["75.0% (75.0%–75.0%)", "–"]);
    assert_eq!(cells(&text, "predicted"), ["3.30 (+10%)", "–"]);
    assert_eq!(cells(&text, "bound by"), ["disk", "–"]);
    assert!(text.contains("|---|---:|---:|\n"));
}

#[test]
fn sentences_tell_ratios_limits_and_conditions() {
    let text = render(&report(), Look::Plain);
    for part in [
        "auto / mmap: decode 2.00× (p10–p90 2.00–2.00); prompt 2.00×",
        "limit 4.00 tok/s: computing takes 50.0 ms a token, the disk 250 ms for 244.14 KiB",
        "read-ahead for mmap 128 KiB (found 8192 KiB)",
        "cap 6.00 GiB with page cache (cgroup v1)",
        "2.00 GB/s at 64 x 864.00 KiB (uring; 2.00 to 2.00)",
        "page cache dropped before each run",
        "warning: something",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn lines_that_say_nothing_are_left_out_and_missing_caps_are_told() {
    let mut report = report();
    for arm in &mut report.arms {
        arm.predicted = None;
        arm.cgroup_peak_bytes = None;
        arm.peak_rss_bytes = None;
    }
    report.arms[1].memcap_bytes = None;
    let text = render(&report, Look::Plain);
    assert!(!text.contains("predicted") && !text.contains("peak RSS"), "{text}");
    assert!(text.contains("mmap (no cap)"), "{text}");
}

#[test]
fn columns_line_up_on_a_terminal() {
    let text = grid(
        &[
            vec![String::new(), "auto".into()],
            vec!["tokens – many".into(), "1".into()],
            vec!["x".into(), "22".into()],
        ],
        Look::Plain,
    );
    let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    assert_eq!(widths, [19, 19, 19]);
}

#[test]
fn numbers_have_the_digits_that_matter() {
    assert_eq!(
        [0.123, 9.99, 10.04, 99.94, 99.96, 1234.5].map(number),
        ["0.12", "9.99", "10.0", "99.9", "100", "1234"]
    );
}

#[test]
fn the_report_survives_json() {
    // Numbers are compared as read from text: serde_json may read a number one unit in the last place away.
    let text = serde_json::to_string(&report()).unwrap();
    let read: Report = serde_json::from_str(&text).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), value);
    assert_eq!(read.arms.len(), 2);
}

//! What people see, at several sizes.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};
use std::time::Instant;

use super::{draw, text};
use crate::cli::top::app::{Action, App};
use crate::cli::top::feed::Seen;

fn document() -> Value {
    json!({
        "version": "0.1.0", "uptime_s": 7265.0,
        "machine": {
            "memory": {"total_bytes": 25_769_803_776_u64, "available_bytes": 9_663_676_416_u64,
                "budget_bytes": 21_474_836_480_u64, "held_bytes": 7_516_192_768_u64},
            "processors": {"count": 8, "busy": 0.62},
            "disk": {"sequential_bytes_per_s": 3.6e9},
        },
        "loading": null,
        "requests": {"active": 3, "waiting_for_a_model": 1, "total": 1234, "failed": 2},
        "models": [
            {"name": "qwen3-coder:30b", "mode": "expert-streaming", "state": "generating", "file_bytes": 17_300_000_000_u64,
             "tiers": {"GPU": 0, "RAM": 6_442_450_944_u64, "NVMe": 11_811_160_064_u64},
             "memory": {"weights_bytes": 1_073_741_824_u64, "streaming_bytes": 4_294_967_296_u64, "kv_bytes": 805_306_368,
                "compute_bytes": 268_435_456, "other_bytes": 0},
             "context": {"tokens": 65536, "cells": 65536, "used_cells": 21845, "trained": 262144},
             "experts": {"layers": 4, "per_layer": 16, "used": 2}, "parallel": 4, "active": 2, "queued": 1,
             "slots": [
                {"state": "prompt", "cached_tokens": 4096, "prompt_tokens": 18000, "prompt_done_tokens": 4096,
                 "prompt_left_s": 21.5, "generated_tokens": 0},
                {"state": "generating", "cached_tokens": 1300, "prompt_tokens": 900, "prompt_done_tokens": 900,
                 "prompt_left_s": null, "generated_tokens": 400},
                {"state": "idle", "cached_tokens": 777, "prompt_tokens": 0},
             ],
             "prefill": {"tokens_per_s": 640.0, "bytes_per_token": 1e5, "hit_rate": 0.5, "bound": "compute"},
             "decode": {"tokens_per_s": 12.34, "bytes_per_token": 3_344_957.0, "hit_rate": 0.59, "bound": "disk"},
             "predicted": {"decode": {"tokens_per_s": {"low": 10.0, "mid": 13.0, "high": 16.0}}}, "notes": []},
            {"name": "demo:latest", "mode": "full-resident", "state": "idle", "file_bytes": 33_000_000,
             "tiers": {"GPU": 0, "RAM": 40_000_000, "NVMe": 0}, "context": {"tokens": 4096, "cells": 4096},
             "parallel": 1, "slots": [], "decode": null, "prefill": null},
        ],
    })
}

fn map() -> Value {
    let rows = ["0123012301230123", "1111000022220000", "3300000000000033", "0000000000000000"];
    let layers = rows.iter().enumerate();
    let layers: Vec<Value> = layers.map(|(layer, row)| json!({"layer": layer, "experts": row})).collect();
    json!({"model": "qwen3-coder:30b", "clock": 5, "layers": layers})
}

fn app() -> App {
    let mut app = App::new("http://127.0.0.1:11434".to_owned());
    for speed in [8.0, 10.0, 11.0, 12.0, 12.34] {
        let mut document = document();
        document["models"][0]["decode"]["tokens_per_s"] = speed.into();
        let status = serde_json::from_value(document).unwrap();
        app.see(Seen::now(status, Some(serde_json::from_value(map()).unwrap())));
    }
    app
}

fn shown(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(app, frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend().to_string()
}

#[test]
fn at_80_by_24() {
    insta::assert_snapshot!(shown(&app(), 80, 24));
}

#[test]
fn at_120_by_40() {
    insta::assert_snapshot!(shown(&app(), 120, 40));
}

#[test]
fn at_40_by_12() {
    insta::assert_snapshot!(shown(&app(), 40, 12));
}

#[test]
fn another_model_is_chosen() {
    let mut app = app();
    app.step(Action::Next);
    let screen = shown(&app, 80, 24);
    assert!(screen.contains("▸ demo:latest") && screen.contains("not measured yet"), "{screen}");
}

#[test]
fn no_size_is_too_small_or_too_large() {
    let app = app();
    for width in [1, 2, 7, 20, 59, 60, 61, 110, 300] {
        for height in [1, 2, 3, 5, 19, 20, 21, 100] {
            shown(&app, width, height);
        }
    }
}

#[test]
fn without_a_server_it_says_so_and_tries_again() {
    let mut app = App::new("http://127.0.0.1:1".to_owned());
    assert!(shown(&app, 80, 24).contains("asking the server"));
    let trouble = || Seen {
        at: Instant::now(),
        status: Err("no server answers at http://127.0.0.1:1: start one with `hypura serve`".to_owned()),
        experts: None,
    };
    app.see(trouble());
    for (width, height) in [(80, 24), (40, 12), (20, 8)] {
        let screen = shown(&app, width, height);
        assert!(screen.contains("no server") && screen.contains("Trying again"), "{screen}");
    }
    // One that goes away: what was seen last stays, and is said to be old.
    let mut app = self::app();
    app.see(trouble());
    let screen = shown(&app, 80, 24);
    assert!(screen.contains("no server") && screen.contains("What is shown is 0 s old"), "{screen}");
    assert!(screen.contains("qwen3-coder:30b") && screen.contains("12.3 tok/s"), "{screen}");
    // And back again.
    let status = serde_json::from_value(document()).unwrap();
    app.see(Seen::now(status, None));
    assert!(!shown(&app, 80, 24).contains("no server"));
}

#[test]
fn one_request_is_one_and_a_load_tells_how_far_it_is() {
    let shown = |loading: Value| {
        let mut app = App::new("http://127.0.0.1:1".to_owned());
        let requests = json!({"active": 1, "waiting_for_a_model": 1, "total": 1, "failed": 0});
        let document = json!({"requests": requests, "loading": loading, "models": []});
        app.see(Seen::now(serde_json::from_value(document).unwrap(), None));
        text(&app, 120)
    };
    let some = shown(json!({"name": "m:latest", "read_bytes": 3_u64 << 30, "total_bytes": 4_u64 << 30}));
    for part in
        ["  1 request\n", "1 request at work", "1 waits for a model", "loading m:latest: 75% of 4.00 GiB"]
    {
        assert!(some.contains(part), "{part:?} is not in\n{some}");
    }
    let none = shown(json!({"name": "m:latest", "read_bytes": 0, "total_bytes": null}));
    assert!(none.contains("loading m:latest\n"), "{none}");
}

#[test]
fn as_text_it_is_as_long_as_it_takes() {
    let text = text(&app(), 100);
    for part in [
        "memory",
        "qwen3-coder:30b",
        "3.19 MiB read per token",
        "59.0% hits",
        "bound by the disk",
        "22 s left",
        "▒",
        "demo:latest",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("quit") && text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert_eq!(text.lines().last().unwrap().trim_end(), text.lines().last().unwrap());
}

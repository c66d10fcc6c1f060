//! What whoever watches a real server is told of a real model, through the process that has it.

use serde_json::{Value, json};

use crate::kit::{finish, hypura, wait};
use crate::serving::Serving;
use crate::terminal::{leave, on_terminal};

#[test]
fn the_status_tells_how_fast_it_goes_and_where_the_experts_are() {
    let server = Serving::start(&["--residency", "stream", "--stream-cache", "33%"]);
    assert_eq!(server.get("/api/hypura/status")["models"], json!([]));
    let options = json!({"num_predict": 32, "temperature": 0});
    let ask = json!({"model": "demo", "prompt": "What is a lynx?", "stream": false, "options": options});
    server.post("/api/generate", &ask);
    // Nobody watched: what is shown is of when the answer ended.
    let start = std::time::Instant::now();
    let settled = || {
        let status = server.get("/api/hypura/status");
        assert!(start.elapsed().as_secs() < 60, "{status}");
        (status["models"][0]["state"] == "idle" && status["models"][0]["decode"].is_object())
            .then_some(status)
    };
    let status = std::iter::repeat_with(settled).flatten().next().unwrap();
    let model = &status["models"][0];
    assert_eq!((&model["name"], &model["mode"]), (&json!("demo:latest"), &json!("expert-streaming")));
    let decode = &model["decode"];
    assert!(decode["tokens_per_s"].as_f64().unwrap() > 0.0, "{decode}");
    assert!(decode["bytes_per_token"].as_f64().unwrap() > 0.0, "{decode}");
    let hits = decode["hit_rate"].as_f64().unwrap();
    assert!((0.0..1.0).contains(&hits), "{decode}");
    assert!(["disk", "compute", "sync"].contains(&decode["bound"].as_str().unwrap()), "{decode}");
    let held = status["machine"]["memory"]["held_bytes"].as_u64().unwrap();
    assert_eq!(model["tiers"]["RAM"].as_u64(), Some(held), "the only one");
    assert!(model["tiers"]["NVMe"].as_u64().unwrap() > 0, "most of its experts are on the disk");

    let map = server.get("/api/hypura/experts?model=demo");
    let layers = map["layers"].as_array().unwrap();
    assert_eq!(layers.len() as u64, model["experts"]["layers"].as_u64().unwrap());
    let digits: String = layers.iter().map(|layer| layer["experts"].as_str().unwrap()).collect();
    assert_eq!(digits.len() as u64, layers.len() as u64 * model["experts"]["per_layer"].as_u64().unwrap());
    for digit in ['0', '3'] {
        assert!(digits.contains(digit), "{digits}");
    }
    let used: Vec<&Value> = layers.iter().map(|layer| &layer["layer"]).collect();
    assert_eq!(used[0], 0);
}

#[test]
fn the_plan_over_http_is_that_of_the_command_line_and_follows_what_is_asked() {
    let server = Serving::start(&[]);
    let plan = server.get("/api/hypura/plan?model=demo");
    assert_eq!(
        (&plan["model"]["name"], &plan["plan"]["mode"]),
        (&json!("demo:latest"), &json!("full-resident"))
    );
    assert!(plan["plan"]["reason"].as_str().unwrap().contains("fit into"), "{plan}");
    // Contexts shrink before experts stream, so how little is too little is for the planner to say.
    let total = plan["plan"]["total_bytes"].as_u64().unwrap();
    let mut less = (1..40).map(|step| total - step * (total / 50));
    let streams = |memory: u64| {
        let plan = server.get(&format!("/api/hypura/plan?model=demo&memory_bytes={memory}"));
        (plan["plan"]["mode"] == "expert-streaming").then_some(plan)
    };
    let small = less.find_map(streams).unwrap();
    let experts = &small["tiers"]["roles"]["routed experts"];
    assert!(experts["streamed_bytes"].as_u64() > experts["cached_bytes"].as_u64(), "{experts}");
    assert!(experts["reason"].as_str().unwrap().contains("have room in memory"), "{experts}");
    let why = small["plan"]["reason"].as_str().unwrap();
    assert!(why.contains("do not fit into"), "{why}");
    assert_eq!(small["prediction"]["decode"], json!(null), "this home has no profile: nothing is invented");
    let larger = server.get("/api/hypura/plan?model=demo&quantization=Q8_0");
    let bytes = |plan: &Value| plan["model"]["bytes"].as_u64().unwrap() as f64;
    let factor = bytes(&larger) / bytes(&plan);
    assert!((1.3..2.1).contains(&factor), "{factor}: 8.5 bits a weight in place of 4.5, and some in between");
    assert!(larger["plan"]["notes"].to_string().contains("taken to be q8_0"), "{larger}");
    let nobody = server.get("/api/hypura/quantizations?model=demo");
    assert_eq!(nobody["quantizations"], json!(null), "the demo model has no repository");
    assert_eq!(server.get("/api/ps")["models"], json!([]), "nothing was loaded for it");
}

#[test]
fn top_prints_what_the_status_tells() {
    let server = Serving::start(&["--residency", "stream", "--stream-cache", "33%"]);
    let options = json!({"num_predict": 8, "temperature": 0});
    let ask = json!({"model": "demo", "prompt": "What is a lynx?", "stream": false, "options": options});
    server.post("/api/generate", &ask);
    let top =
        |arguments: &[&str]| finish(hypura().env("HYPURA_HOST", &server.address).arg("top").args(arguments));
    let shown = top(&["--once"]).assert_success().stdout;
    for part in ["memory", "▸ demo:latest", "expert-streaming", "NVMe", "░ in memory", "used for each token"]
    {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    let line = top(&["--once", "--json"]).assert_success().stdout;
    assert_eq!(line.lines().count(), 1);
    let status: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(status["models"][0]["name"], "demo:latest");
    // Elsewhere is nobody, and this is no terminal.
    let nobody = top(&["--once", "--host", "127.0.0.1:1"]);
    nobody.assert_error(1, &["no server answers", "hypura serve"]);
    top(&[]).assert_error(2, &["--once"]);
}

#[test]
fn a_terminal_that_goes_away_ends_top() {
    let server = Serving::start(&[]);
    let mut command = hypura();
    command.env("HYPURA_HOST", &server.address).env("TERM", "xterm").arg("top");
    let (terminal, mut child) = on_terminal(&mut command);
    leave(terminal, "Machine");
    assert_eq!(wait(&mut child), Some(128 + 1));
}

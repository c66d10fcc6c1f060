//! `hypura profile` and `hypura doctor` from end to end. Speeds are not looked at; that there are some is.

use crate::kit::{Finished, demo, finish, hypura, run};
use serde_json::Value;
use std::path::Path;

fn at_home(home: &Path, arguments: &[&str]) -> Finished {
    finish(hypura().args(arguments).env("XDG_CACHE_HOME", home).env("HOME", home))
}

#[test]
fn a_machine_is_measured_once_in_time_and_remembered() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    let measure = ["profile", "--dir", dir, "--threads", "1", "--json"];
    let first = at_home(home.path(), &measure).assert_success();
    assert!(
        first.stderr.contains("measuring this machine") && first.stderr.contains("not measured yet"),
        "{first:?}"
    );
    let profile: Value = serde_json::from_str(&first.stdout).unwrap();
    // The budget is 15 s; reads that are out when it ends come back a little later.
    assert!(profile["measuring_s"].as_f64().unwrap() < 17.0, "{}", profile["measuring_s"]);
    assert_eq!(profile["key"]["threads"], 1);
    assert!(profile["matmul"].as_array().unwrap().len() >= 3, "{profile}");
    assert!(profile["memory"]["room_bytes"].as_u64().unwrap() > 0);
    let storage = &profile["storage"];
    let measured = storage["reads"].as_array().unwrap().iter().any(|read| !read["bytes_per_s"].is_null());
    assert_ne!(measured, !storage["obstacle"].is_null(), "a rate or a reason: {storage}");

    let table = at_home(home.path(), &measure[..5]).assert_success();
    assert!(!table.stderr.contains("measuring"), "{table:?}");
    for part in ["processor", "memory", "weights", "q4_K", "disk"] {
        assert!(table.stdout.contains(part), "{part}: {table:?}");
    }
    // What was measured for `profile` does for `plan`.
    let model = demo();
    let plan = ["plan", model.to_str().unwrap(), "--threads", "1", "--dir", dir, "--json"];
    let plan = at_home(home.path(), &plan).assert_success();
    assert!(!plan.stderr.contains("measuring"), "{plan:?}");
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    assert_eq!(plan["profile"]["measured_at_s"], profile["measured_at_s"]);
}

#[test]
fn a_profile_of_nowhere_is_an_error_and_measures_nothing() {
    run(["profile", "--dir", "/no/such/place"]).assert_error(1, &["cannot look at /no/such/place"]);
    run(["profile", "--refresh", "--dir", "/no/such/place"]).assert_error(1, &["/no/such/place"]);
    run(["profile", "--threads", "0"]).assert_error(2, &["--threads"]);
}

#[test]
fn the_doctor_looks_at_everything_for_people_and_for_programs() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    let text = at_home(home.path(), &["doctor", "--dir", dir]).assert_success().stdout;
    let json = at_home(home.path(), &["doctor", "--dir", dir, "--json"]).assert_success().stdout;
    let findings: Vec<Value> = serde_json::from_str(&json).unwrap();
    for what in [
        "disk",
        "file system",
        "free space",
        "direct I/O",
        "io_uring",
        "memory",
        "cgroup",
        "backends",
        "models",
    ] {
        assert!(text.contains(what), "{what}: {text}");
        let finding = findings.iter().find(|finding| finding["what"] == what).unwrap();
        let verdict = finding["verdict"].as_str().unwrap();
        assert!(["good", "slow", "bad", "unknown"].contains(&verdict), "{finding}");
        assert!(!["slow", "bad"].contains(&verdict) || finding["fix"].is_string(), "a fix: {finding}");
    }
    run(["doctor", "--dir", "/no/such/place"]).assert_error(1, &["cannot look at /no/such/place"]);
}

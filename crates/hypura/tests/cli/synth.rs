//! `hypura synth`: whole files under their names, or nothing.

use crate::kit::{Finished, hypura, interrupt, model, run, stats, terminate, wait};
use hypura_core::synth::Shape;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn synth(folder: &Path, flags: &[&str]) -> Finished {
    let out = folder.join("x.gguf");
    run(["synth", "tiny-qwen3-moe", "--out", out.to_str().unwrap()].iter().chain(flags))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn it_writes_what_the_library_plans() {
    let folder = tempfile::tempdir().unwrap();
    synth(folder.path(), &[]).assert_success();
    assert_eq!(names(folder.path()), ["x.gguf"]);
    let expected = model(tempfile::tempdir().unwrap().keep().as_path(), Shape::TinyQwen3Moe, 1);
    let written = fs::read(folder.path().join("x.gguf")).unwrap();
    assert!(written == fs::read(&expected).unwrap(), "the bytes differ");
    fs::remove_dir_all(expected.parent().unwrap()).unwrap();
}

#[test]
fn shards_and_repeated_bytes_run() {
    let folder = tempfile::tempdir().unwrap();
    let finished =
        synth(folder.path(), &["--shards", "3", "--unique", "1MiB", "--seed", "5"]).assert_success();
    let expected: Vec<String> = (1..=3).map(|shard| format!("x-{shard:05}-of-00003.gguf")).collect();
    assert_eq!(names(folder.path()), expected);
    assert!(finished.stdout.contains("share"), "{finished:?}");
    let stats = stats(&folder.path().join(&expected[0]), &["-n", "2", "--ignore-eos"], "hi");
    assert_eq!(stats["generated_tokens"], 2);
}

#[test]
fn it_does_not_replace_a_file_unless_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    fs::write(&path, "precious").unwrap();
    synth(folder.path(), &[]).assert_error(1, &["x.gguf", "exists already", "--force"]);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    synth(folder.path(), &["--force"]).assert_success();
    assert!(fs::read(&path).unwrap().starts_with(b"GGUF"));
    assert_eq!(names(folder.path()), ["x.gguf"]);
}

#[test]
fn a_folder_that_is_not_there_and_layers_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    synth(&folder.path().join("no"), &[]).assert_error(1, &["cannot create", "No such file"]);
    let out = folder.path().join("x.gguf");
    run(["synth", "tiny-kimi-k2", "--layers", "1", "--out", out.to_str().unwrap()])
        .assert_error(1, &["tiny-kimi-k2", "1 layers"]);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_disk_that_refuses_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.gguf");
    // A limit on the size of files is a full disk that every machine has.
    let script = r#"ulimit -f 1000 && exec "$0" synth tiny-qwen3-moe --out "$1""#;
    let program = env!("CARGO_BIN_EXE_hypura");
    let output = Command::new("sh").args(["-c", script, program]).arg(&out).output().unwrap();
    let finished = Finished::of(output);
    finished.assert_error(1, &["cannot write", "x.gguf", "too large", "--out"]);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn ctrl_c_and_a_request_to_end_leave_nothing_behind() {
    for stop in [interrupt, terminate] {
        stopped_in_the_middle(stop);
    }
}

fn stopped_in_the_middle(stop: fn(&Child)) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.gguf");
    // Large enough that nobody writes it before the signal comes.
    let mut child = hypura()
        .args(["synth", "qwen3-30b-a3b", "--layers", "12", "--out"])
        .arg(&out)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !folder.path().join("x.gguf.partial").metadata().is_ok_and(|file| file.len() > 0) {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(2));
    }
    stop(&child);
    assert_eq!(wait(&mut child), Some(130));
    assert!(names(folder.path()).is_empty());
}

#[test]
fn the_list_names_every_shape() {
    let listed = run(["synth", "--list"]).assert_success().stdout;
    for shape in Shape::ALL {
        assert!(listed.contains(shape.name()), "{shape}");
    }
}

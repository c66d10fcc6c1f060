//! Ctrl-C.

use crate::kit::{hypura, interrupt, wait};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

#[test]
fn ctrl_c_stops_the_answer_and_the_summary_still_comes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stats.json");
    let mut child = hypura()
        .args(["run", "demo", "What is a lynx?", "--ignore-eos", "--stats-json"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    interrupt(&child);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(wait(&mut child), Some(130));
    assert!(text.ends_with('\n'));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("stopped") && stderr.contains("bound by"), "{stderr}");
    let stats: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(stats["finish"], "stopped");
}

#[test]
fn ctrl_c_while_waiting_for_a_prompt_ends_the_program() {
    let mut child = hypura().args(["run", "demo"]).stdin(Stdio::piped()).spawn().unwrap();
    // More than a pipe holds: when all of it is gone, somebody reads, and has taken over Ctrl-C before.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'a'; 1 << 20]).unwrap();
    interrupt(&child);
    assert_eq!(wait(&mut child), Some(130));
}

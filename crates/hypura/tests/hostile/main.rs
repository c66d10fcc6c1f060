//! Files that strangers made: models with shapes, types, offsets, metadata, vocabularies, templates and
//! shards that contradict each other, through `hypura run` and through a server.
//!
//! Whatever is in a file, `run` answers or ends with exit code 1 and one line, the server stays, nothing
//! takes longer than a deadline or more memory than a cap. Files are numbered: a seed and a number make the
//! same file on every machine. A short run is part of the tests; `make hostile FILES=5000 SEED=7` is a long
//! one, and `FIRST=123 FILES=1 KEEP=DIR` keeps the file that a failure names.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]
#![cfg(target_os = "linux")]

mod draft;
#[expect(dead_code, reason = "shared with the tests of the program, which need more of it")]
#[path = "../cli/kit.rs"]
mod kit;
mod metadata;
mod mutate;
mod order;
mod run;
mod served;
mod tally;
mod tensors;
mod value;
mod vocabulary;
mod words;

use order::Order;

#[test]
fn hostile_files_are_an_answer_or_one_line_of_a_run() {
    let tally = Order::of_environment().each(2, run::one);
    tally.finish("run");
}

#[test]
fn hostile_files_end_no_server() {
    let server = served::Server::start();
    let tally = Order::of_environment().each(2, |file| server.one(file));
    server.finish();
    tally.finish("serve");
}

/// For `make sanitize`, which has them loaded by a llama.cpp that watches its memory: as many as were asked
/// for, of those that our own reader of headers lets through.
#[test]
#[ignore = "#14: writes files for another program"]
fn hostile_files_for_sanitizers() {
    Order::of_environment().write(run::is_let_through);
}

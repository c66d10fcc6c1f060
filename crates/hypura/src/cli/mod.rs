//! The command line: parse, run, exit code.
//!
//! A subcommand is one variant of `command::Command` and one module with its `Args` and `execute`. Flags that
//! several commands have are in `flags`. Exit codes: 0 done, 1 a runtime error, 2 wrong usage, 130 stopped by
//! Ctrl-C. Errors are one line on stderr: what, why, way out.

mod bench;
mod command;
mod doctor;
mod failure;
mod flags;
mod home;
mod interrupt;
mod iobench;
mod launch;
mod models;
mod plan;
mod profile;
mod pull;
mod run;
mod runner;
mod serve;
mod shell;
mod style;
mod synth;
mod top;
mod trace;
mod version;
mod workers;

pub use command::main;

//! The program: everything is in the library, so that tests and benchmarks can reach it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    hypura::cli::main()
}

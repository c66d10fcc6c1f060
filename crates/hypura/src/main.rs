//! The program: everything is in the library, so that tests and benchmarks can reach it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before there is a second thread.
    hypura_engine::system::prepare_process();
    hypura::cli::main()
}

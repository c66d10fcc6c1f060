//! Chores of the repository, run as `cargo xtask CHORE`. There is one: `tidy`, the rules that compilers and clippy do
//! not know. Owns no product code; nothing depends on it.
#![forbid(unsafe_code)]

mod tidy;

use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "usage: cargo xtask tidy    check the rules of this repository (they are listed in xtask/src/tidy/mod.rs)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => match tidy() {
            Ok(code) => code,
            Err(error) => {
                eprintln!("tidy: {error:#}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn tidy() -> Result<ExitCode> {
    let tree = tidy::Tree::of_checkout()?;
    let findings = tidy::check(&tree)?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing to say", tree.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} findings", findings.len());
    Ok(ExitCode::FAILURE)
}

//! Chores of the repository, run as `cargo xtask CHORE`: `tidy`, the rules that compilers and clippy do not
//! know; `metrics`, figures of the code; and `wrap`, which fills text that is too wide. Owns no product code;
//! nothing depends on it.
#![forbid(unsafe_code)]

mod metrics;
mod modules;
mod prose;
mod rust;
mod tidy;
mod tree;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use tree::Tree;

const USAGE: &str = "\
usage: cargo xtask tidy [--strict]   check the rules of this repository (they are listed in xtask/src/tidy/mod.rs)
       cargo xtask metrics           print figures of the code
       cargo xtask wrap [PATH…]      fill the comments and Markdown text that are too wide, in all files or in these";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy(false),
        ["tidy", "--strict"] => tidy(true),
        ["metrics"] => metrics(),
        ["wrap", paths @ ..] => wrap(paths),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn tidy(strict: bool) -> Result<ExitCode> {
    let tree = Tree::of_checkout()?;
    let (stale, findings): (Vec<_>, Vec<_>) =
        tidy::check(&tree)?.into_iter().partition(|finding| finding.is_stale && !strict);
    for advice in tidy::advice(&tree).into_iter().chain(stale) {
        println!("advice: {advice}");
    }
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

fn metrics() -> Result<ExitCode> {
    print!("{}", metrics::Metrics::of(&Tree::of_checkout()?)?);
    Ok(ExitCode::SUCCESS)
}

/// Fills what is too wide, in all files of the checkout or in those whose path from its root begins like one
/// of these.
fn wrap(paths: &[&str]) -> Result<ExitCode> {
    let tree = Tree::of_checkout()?;
    let root = tree.root().context("the checkout's path is not UTF-8")?;
    for (path, text) in tree.texts("") {
        if !paths.is_empty() && !paths.iter().any(|start| path.starts_with(start)) {
            continue;
        }
        let wrapped = match path.rsplit_once('.') {
            Some((_, "rs")) => prose::wrap_rust(path, text)?,
            Some((_, "md")) => prose::wrap_document(text),
            _ => continue,
        };
        if wrapped != text {
            std::fs::write(format!("{root}/{path}"), wrapped)
                .with_context(|| format!("cannot write {path}"))?;
            println!("wrapped {path}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

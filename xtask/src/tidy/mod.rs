//! The rules of this repository that neither rustc nor clippy checks. One file a rule; each is a pure
//! function of a [`Tree`], so that its tests are small trees in memory.
//!
//! | Rule | What it wants |
//! |---|---|
//! | [`dependencies`] | crates depend on each other in the permitted directions only |
//! | [`cycles`] | modules of a crate do not use each other in a circle |
//! | [`unsafety`] | `unsafe` in `crates/storage`, `crates/ggml` and `crates/ggml-rpc` only |
//! | [`sizes`] | functions of at most 70 lines, a `mod.rs` of at most 80 |
//! | [`types`] | `impl` blocks of a type of at most 350 lines together, over all files of a crate |
//! | [`widths`] | comments and Markdown text of at most 110 columns |
//! | [`headers`] | a Rust file opens with what it is for |
//! | [`words`] | no reminder (TO-DO) and no `#[ignore]` without an issue; no path of one person's machine |
//! | [`links`] | links between Markdown files lead somewhere |
//! | [`weights`] | no file above 64 MB |
//!
//! What was larger when its rule came is listed in `xtask/ratchet.toml`; a number there may only fall. That
//! it should follow what has become smaller fails with `--strict` alone, which `make tidy` uses. [`advice`]
//! is printed and fails nothing: files above 500 lines.
//!
//! `unwrap` and `expect` outside of tests are clippy's business (`[workspace.lints.clippy]`).

mod cycles;
mod dependencies;
mod finding;
mod headers;
mod links;
mod ratchet;
mod sizes;
pub(crate) mod types;
mod unsafety;
mod weights;
mod widths;
mod words;

use anyhow::Result;

use crate::tree::Tree;
use finding::Finding;
use ratchet::Ratchet;

/// Applies all rules. The findings are sorted by path and line.
///
/// # Errors
/// A file of the rules themselves (a manifest, the ratchet) or a Rust file that cannot be parsed.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let ratchet = Ratchet::of(tree)?;
    let mut findings = dependencies::check(tree)?;
    findings.extend(cycles::check(tree)?);
    findings.extend(unsafety::check(tree)?);
    findings.extend(sizes::check(tree, &ratchet)?);
    findings.extend(types::check(tree, &ratchet)?);
    findings.extend(widths::check(tree, &ratchet)?);
    findings.extend(headers::check(tree));
    findings.extend(words::check(tree));
    findings.extend(links::check(tree));
    findings.extend(weights::check(tree));
    findings.sort();
    Ok(findings)
}

/// What is worth a thought, and fails nothing.
pub(crate) fn advice(tree: &Tree) -> Vec<Finding> {
    sizes::advice(tree)
}

#[cfg(test)]
mod tests;

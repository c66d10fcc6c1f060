//! The rules of this repository that neither rustc nor clippy checks. One file a rule; each is a pure function of a
//! [`Tree`], so that its tests are small trees in memory.
//!
//! | Rule | What it wants |
//! |---|---|
//! | [`dependencies`] | crates depend on each other in the permitted directions only |
//! | [`unsafety`] | `unsafe` in `crates/storage` and `crates/ggml` only |
//! | [`sizes`] | files of at most 500 lines, functions of at most 70, or the number in `xtask/ratchet.toml` |
//! | [`headers`] | a Rust file opens with what it is for |
//! | [`words`] | no reminder (TO-DO) and no `#[ignore]` without an issue; no path of one person's machine |
//! | [`links`] | links between Markdown files lead somewhere |
//! | [`weights`] | no file above 64 MB |
//!
//! `unwrap` and `expect` outside of tests are clippy's business (`[workspace.lints.clippy]`).

mod dependencies;
mod headers;
mod links;
mod rust;
mod sizes;
mod tree;
mod unsafety;
mod weights;
mod words;

use std::fmt;

use anyhow::Result;

pub(crate) use tree::Tree;

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: Option<usize>,
    message: String,
}

impl Finding {
    fn of_file(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, message: message.into() }
    }

    fn at(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: Some(line), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Applies all rules. The findings are sorted by path and line.
///
/// # Errors
/// A file of the rules themselves (a manifest, the ratchet) or a Rust file that cannot be parsed.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = dependencies::check(tree)?;
    findings.extend(unsafety::check(tree)?);
    findings.extend(sizes::check(tree)?);
    findings.extend(headers::check(tree));
    findings.extend(words::check(tree));
    findings.extend(links::check(tree));
    findings.extend(weights::check(tree));
    findings.sort();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_the_place() {
        assert_eq!(Finding::at("a.rs", 3, "is odd").to_string(), "a.rs:3: is odd");
        assert_eq!(Finding::of_file("a.rs", "is odd").to_string(), "a.rs: is odd");
    }

    #[test]
    fn every_rule_runs_and_findings_are_sorted() -> Result<()> {
        let tree = Tree::of_texts(&[
            ("README.md", "[gone](gone.md)\n"),
            (
                "crates/core/Cargo.toml",
                "[package]\nname = \"hypura-core\"\n[dependencies]\nhypura-ggml.workspace = true\n",
            ),
            ("crates/core/src/lib.rs", "fn f() { unsafe {} }\n"),
            ("docs/a.md", concat!("TO", "DO\n")),
            ("long.rs", &("//! Long.\n".to_owned() + &"\n".repeat(600))),
        ])
        .with_large_file("weights.gguf", 65 << 20);
        let found: Vec<String> = check(&tree)?.into_iter().map(|finding| finding.path).collect();
        assert_eq!(
            found,
            [
                "README.md",
                "crates/core/Cargo.toml",
                "crates/core/src/lib.rs", // forbid(unsafe_code)
                "crates/core/src/lib.rs", // header
                "crates/core/src/lib.rs", // unsafe
                "docs/a.md",
                "long.rs",
                "weights.gguf",
            ]
        );
        Ok(())
    }
}

//! `unsafe` is confined to `crates/storage`, `crates/ggml` and `crates/ggml-rpc`: everywhere else the crate
//! root forbids or denies it, and the word does not occur as a token, not even in a macro or under an
//! `expect`.

use anyhow::Result;
use proc_macro2::{TokenStream, TokenTree};

use super::Finding;
use crate::rust;
use crate::tree::Tree;

/// Where the word may occur.
const PERMITTED: [&str; 3] = ["crates/storage/", "crates/ggml/", "crates/ggml-rpc/"];

/// Crate roots that must forbid it, which no attribute further in can lift.
const FORBID: [&str; 1] = ["crates/core/src/lib.rs"];

pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(".rs") {
        if PERMITTED.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        let mut lines = Vec::new();
        collect_unsafe(rust::tokens(path, text)?, &mut lines);
        findings.extend(
            lines
                .into_iter()
                .map(|line| Finding::at(path, line, format!("`unsafe` outside of {}", PERMITTED.join(", ")))),
        );
        if path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs") {
            let levels: &[&str] = if FORBID.contains(&path) { &["forbid"] } else { &["forbid", "deny"] };
            if !rust::parse(path, text)?.attrs.iter().any(|attribute| sets_unsafe_code(attribute, levels)) {
                findings.push(Finding::at(
                    path,
                    1,
                    format!("the crate root lacks `#![{}(unsafe_code)]`", levels.join(" or ")),
                ));
            }
        }
    }
    Ok(findings)
}

fn collect_unsafe(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
            TokenTree::Group(group) => collect_unsafe(group.stream(), lines),
            _ => {}
        }
    }
}

fn sets_unsafe_code(attribute: &syn::Attribute, levels: &[&str]) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    levels.iter().any(|level| list.path.is_ident(level))
        && list
            .tokens
            .clone()
            .into_iter()
            .any(|token| matches!(token, TokenTree::Ident(ident) if ident == "unsafe_code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Result<Vec<Option<usize>>> {
        let findings = check(&Tree::of_texts(&[(path, text)]))?;
        Ok(findings.into_iter().map(|finding| finding.line).collect())
    }

    #[test]
    fn the_token_is_found_in_functions_and_macros() -> Result<()> {
        assert_eq!(found("crates/engine/src/a.rs", "fn f() {\n    unsafe { g() }\n}\n")?, [Some(2)]);
        assert_eq!(found("crates/engine/src/a.rs", "m! {\n\n  unsafe fn f() {} }\n")?, [Some(3)]);
        assert_eq!(found("crates/hypura/tests/a.rs", "unsafe impl Send for A {}\n")?, [Some(1)]);
        Ok(())
    }

    #[test]
    fn the_word_in_comments_strings_and_names_is_not_found() -> Result<()> {
        let text = "// unsafe\nconst A: &str = \"unsafe\";\nfn unsafe_code() {}\n";
        assert_eq!(found("crates/engine/src/a.rs", text)?, []);
        Ok(())
    }

    #[test]
    fn storage_and_ggml_may_and_their_namesakes_may_not() -> Result<()> {
        let text = "fn f() { unsafe { g() } }\n";
        assert_eq!(found("crates/storage/src/lib.rs", text)?, []);
        assert_eq!(found("crates/ggml/src/abi.rs", text)?, []);
        assert_eq!(found("crates/ggml-tools/src/abi.rs", text)?, [Some(1)]);
        Ok(())
    }

    #[test]
    fn crate_roots_must_say_so_and_core_most_strictly() -> Result<()> {
        assert_eq!(found("crates/engine/src/lib.rs", "//! Engine.\n")?, [Some(1)]);
        assert_eq!(found("crates/engine/src/lib.rs", "#![warn(unsafe_code)]\n")?, [Some(1)]);
        assert_eq!(found("crates/engine/src/lib.rs", "#![deny(unsafe_code)]\n")?, []);
        assert_eq!(found("xtask/src/main.rs", "#![forbid(unsafe_code)]\nfn main() {}\n")?, []);
        assert_eq!(found("crates/core/src/lib.rs", "#![deny(unsafe_code)]\n")?, [Some(1)]);
        assert_eq!(found("crates/core/src/lib.rs", "#![forbid(missing_docs, unsafe_code)]\n")?, []);
        Ok(())
    }
}

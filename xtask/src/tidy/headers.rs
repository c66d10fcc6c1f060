//! A Rust file opens with a `//!` comment: its job, what it owns, its invariants.

use super::Finding;
use crate::tree::Tree;

/// What stands in a file that nobody has described yet.
const EMPTY_WORDS: [&str; 2] = ["", "Placeholder."];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.texts(".rs")
        .filter(|(_, text)| !opens_well(text))
        .map(|(path, _)| Finding::at(path, 1, "opens without a `//!` comment that says what the file is for"))
        .collect()
}

fn opens_well(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("//!").is_some_and(|words| !EMPTY_WORDS.contains(&words.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_must_come_first_and_say_something() {
        let tree = Tree::of_texts(&[
            ("good.rs", "//! The good file.\nfn f() {}\n"),
            ("empty.rs", ""),
            ("late.rs", "use std::fmt;\n//! Late.\n"),
            ("outer.rs", "/// About the function.\nfn f() {}\n"),
            ("placeholder.rs", "//! Placeholder.\n"),
            ("notes.md", "no Rust"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["empty.rs", "late.rs", "outer.rs", "placeholder.rs"]);
    }
}

//! Comments of Rust files and Markdown text have at most 110 columns, as code has. [`prose`] says what is
//! excepted: tables, code, links, headings. `cargo xtask wrap` fills what is wider.

use anyhow::Result;

use super::Finding;
use super::ratchet::{self, Ratchet};
use crate::prose;
use crate::tree::Tree;

pub(crate) fn check(tree: &Tree, listed: &Ratchet) -> Result<Vec<Finding>> {
    let mut comments = Vec::new();
    for (path, text) in tree.texts(".rs") {
        comments.extend(prose::wide_lines_of_rust(path, text)?.into_iter().map(|line| finding(path, line)));
    }
    let documents = tree
        .texts(".md")
        .flat_map(|(path, text)| {
            prose::wide_lines_of_document(text).into_iter().map(move |line| finding(path, line))
        })
        .collect();
    let mut findings = judge("comment", comments, listed.widths.comments);
    findings.extend(judge("document", documents, listed.widths.documents));
    Ok(findings)
}

fn finding(path: &str, line: usize) -> Finding {
    let widest = prose::WIDEST;
    Finding::at(path, line, format!("text of more than {widest} columns: `cargo xtask wrap {path}` fills it"))
}

/// Up to the listed number, wide lines are not held against anybody.
fn judge(what: &str, wide: Vec<Finding>, listed: usize) -> Vec<Finding> {
    if listed == 0 {
        return wide;
    }
    let count = wide.len();
    let message = match count {
        0 => {
            let message = format!("no {what} line is too wide any more: remove their number");
            return vec![Finding::of_file(ratchet::PATH, message).stale()];
        }
        _ if count > listed => format!(
            "{count} {what} lines have more than {} columns, {listed} are listed: `cargo xtask wrap FILE` fills them",
            prose::WIDEST
        ),
        _ => return Vec::new(),
    };
    vec![Finding::of_file(ratchet::PATH, message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str, ratchet: &str) -> Result<Vec<String>> {
        let tree = Tree::of_texts(&[(path, text), (ratchet::PATH, ratchet)]);
        let findings = check(&tree, &Ratchet::of(&tree)?)?;
        Ok(findings.iter().map(Finding::to_string).collect())
    }

    #[test]
    fn comments_and_documents_are_judged_and_the_place_is_named() -> Result<()> {
        let words = "word ".repeat(23);
        let message = |path| format!("text of more than 110 columns: `cargo xtask wrap {path}` fills it");
        assert_eq!(
            found("a.rs", &format!("//! A.\nfn f() {{\n    // {words}\n}}\n"), "")?,
            [format!("a.rs:3: {}", message("a.rs"))]
        );
        assert_eq!(found("a.md", &format!("A.\n{words}\n"), "")?, [format!("a.md:2: {}", message("a.md"))]);
        assert_eq!(found("a.toml", &format!("# {words}\n"), "")?, <[&str; 0]>::default());
        Ok(())
    }

    #[test]
    fn the_listed_number_is_a_bound_that_goes_when_it_is_reached() -> Result<()> {
        let text = format!("{}\n\n", "word ".repeat(23)).repeat(3);
        let ratchet = |number: usize| format!("[widths]\ndocuments = {number}\n");
        assert_eq!(found("a.md", &text, &ratchet(3))?, <[&str; 0]>::default());
        assert_eq!(found("a.md", &text, &ratchet(9))?, <[&str; 0]>::default());
        assert!(found("a.md", &text, &ratchet(2))?[0].contains("3 document lines"));
        assert!(found("a.md", "", &ratchet(2))?[0].contains("remove their number"));
        Ok(())
    }
}

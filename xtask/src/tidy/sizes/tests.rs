//! Tests of the size rule: limits, the ratchet in both directions, and which functions are seen.

use super::*;
use crate::tidy::ratchet::PATH as RATCHET;

/// A function of `lines` lines, at least 2.
fn function(name: &str, lines: usize) -> String {
    format!("fn {name}() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
}

/// (line, message) of what is found in `a.rs` with this text and this ratchet.
fn found(text: &str, ratchet: &str) -> Result<Vec<(Option<usize>, String)>> {
    let tree = Tree::of_texts(&[("a.rs", text), (RATCHET, ratchet)]);
    Ok(check(&tree, &Ratchet::of(&tree)?)?
        .into_iter()
        .map(|finding| (finding.line, finding.message))
        .collect())
}

#[test]
fn a_mod_rs_of_80_lines_passes_and_one_of_81_does_not_unless_it_is_listed() -> Result<()> {
    let found = |path: &str, lines: usize, ratchet: &str| -> Result<Vec<String>> {
        let tree = Tree::of_texts(&[(path, &"\n".repeat(lines)), (RATCHET, ratchet)]);
        Ok(check(&tree, &Ratchet::of(&tree)?)?.iter().map(Finding::to_string).collect())
    };
    let none = <[&str; 0]>::default();
    assert_eq!(found("a/src/b/mod.rs", 80, "")?, none);
    assert_eq!(
        found("a/src/b/mod.rs", 81, "")?,
        ["a/src/b/mod.rs: the mod.rs has 81 lines, more than 80: split it"]
    );
    assert_eq!(found("a/src/b/mod.rs", 81, "[modules]\n\"a/src/b/mod.rs\" = 81\n")?, none);
    // Helpers of integration tests have no other file to be in.
    assert_eq!(found("a/tests/b/mod.rs", 81, "")?, none);
    assert_eq!(found("a/src/b.rs", 81, "")?, none);
    Ok(())
}

#[test]
fn a_file_of_more_than_500_lines_is_a_matter_of_advice() -> Result<()> {
    for (lines, expected) in [(500, 0), (501, 1)] {
        let tree = Tree::of_texts(&[("a.rs", &"\n".repeat(lines))]);
        assert_eq!(advice(&tree).len(), expected);
        assert_eq!(check(&tree, &Ratchet::default())?, []);
    }
    Ok(())
}

#[test]
fn a_function_of_70_lines_passes_and_one_of_71_does_not() -> Result<()> {
    assert_eq!(found(&function("f", 70), "")?, []);
    let text = format!("\n/// About f.\n{}", function("f", 71));
    let message = "the function has 71 lines, more than 70: split it".to_owned();
    assert_eq!(found(&text, "")?, [(Some(3), message)]);
    Ok(())
}

#[test]
fn a_listed_function_may_keep_its_length_but_not_grow() -> Result<()> {
    let ratchet = "[functions]\n\"a.rs::f\" = 80\n";
    assert_eq!(found(&function("f", 80), ratchet)?, []);
    assert_eq!(
        found(&function("f", 81), ratchet)?,
        [(Some(1), "the function has grown from 80 to 81 lines: shorten it".to_owned())]
    );
    Ok(())
}

#[test]
fn the_ratchet_follows_what_shrinks() -> Result<()> {
    let ratchet = "[functions]\n\"a.rs::f\" = 80\n";
    let shrunk = format!("the function has shrunk to 75 lines: set `a.rs::f` to it in {RATCHET}, now 80");
    assert_eq!(found(&function("f", 75), ratchet)?, [(Some(1), shrunk)]);
    let short = format!("the function has become short: remove `a.rs::f` from {RATCHET}");
    assert_eq!(found(&function("f", 70), ratchet)?, [(Some(1), short)]);
    Ok(())
}

#[test]
fn a_ratchet_that_should_follow_breaks_no_rule() -> Result<()> {
    for (lines, is_stale) in [(60, true), (75, true), (81, false)] {
        let ratchet = "[functions]\n\"a.rs::f\" = 80\n";
        let tree = Tree::of_texts(&[("a.rs", &function("f", lines)), (RATCHET, ratchet)]);
        let findings = check(&tree, &Ratchet::of(&tree)?)?;
        assert_eq!(
            findings.iter().map(|finding| finding.is_stale).collect::<Vec<_>>(),
            [is_stale],
            "{lines}"
        );
    }
    Ok(())
}

#[test]
fn what_is_gone_leaves_the_ratchet() -> Result<()> {
    let ratchet = "[modules]\n\"b/src/mod.rs\" = 90\n[functions]\n\"a.rs::g\" = 80\n";
    assert_eq!(
        found("", ratchet)?,
        [
            (None, "the mod.rs `b/src/mod.rs` is gone: remove it".to_owned()),
            (None, "the function `a.rs::g` is gone: remove it".to_owned()),
        ]
    );
    Ok(())
}

#[test]
fn functions_are_seen_wherever_they_stand() -> Result<()> {
    let long = function("f", 71);
    for (text, key) in [
        (format!("mod m {{\n{long}}}\n"), "a.rs::m::f"),
        (format!("impl<T> Trait for m::Type<T> {{\n{long}}}\n"), "a.rs::Type::f"),
        (format!("trait Trait {{\n{long}}}\n"), "a.rs::Trait::f"),
        (format!("impl Trait for [u8] {{\n{long}}}\n"), "a.rs::impl@1::f"),
    ] {
        assert_eq!(found(&text, "")?.len(), 1, "{key}");
        assert_eq!(found(&text, &format!("[functions]\n\"{key}\" = 71\n"))?, [], "{key}");
    }
    // Around a long function the outer one is long too.
    let nested = format!("fn outer() {{\n{long}}}\n");
    let ratchet = "[functions]\n\"a.rs::outer\" = 73\n\"a.rs::outer::f\" = 71\n";
    assert_eq!(found(&nested, "")?.len(), 2);
    assert_eq!(found(&nested, ratchet)?, []);
    Ok(())
}

#[test]
fn of_equal_names_the_longest_counts() -> Result<()> {
    let text =
        format!("impl A for T {{\n{}}}\nimpl B for T {{\n{}}}\n", function("f", 80), function("f", 75));
    assert_eq!(found(&text, "[functions]\n\"a.rs::T::f\" = 80\n")?, []);
    assert_eq!(found(&text, "")?.len(), 1);
    Ok(())
}

#[test]
fn a_ratchet_with_a_misspelt_table_is_an_error() {
    assert!(found("", "[function]\n").is_err());
}

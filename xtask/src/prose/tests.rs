//! Tests of prose: what is too wide, what stays as it is, and that filling twice is filling once.

use super::*;

/// So many words of four letters, `column` columns wide with spaces.
fn words(count: usize) -> String {
    vec!["word"; count].join(" ")
}

/// The document wrapped, after wrapping it once more has changed nothing and nothing is too wide.
fn wrapped(text: &str) -> String {
    let once = wrap_document(text);
    assert_eq!(wrap_document(&once), once, "wrapped twice");
    assert_eq!(wide_lines_of_document(&once), <[usize; 0]>::default(), "{once}");
    once
}

#[test]
fn a_line_of_110_columns_is_kept_and_one_of_111_is_broken() {
    let fits = words(21) + " words";
    assert_eq!(columns(&fits), 110);
    assert_eq!(wrapped(&fits), fits);
    assert_eq!(wrapped(&(fits.clone() + "s")), format!("{}\nwordss", words(21)));
    assert_eq!(wide_lines_of_document(&format!("\n{fits}s\n")), [2]);
}

#[test]
fn a_paragraph_is_filled_as_a_whole_and_its_neighbours_are_not_touched() {
    let text = format!("short\nlines\n\n{}\nend\n\nshort\nagain\n", words(23));
    assert_eq!(wrapped(&text), format!("short\nlines\n\n{}\nword end\n\nshort\nagain\n", words(22)));
}

#[test]
fn list_items_hang_from_their_bullets() {
    let text = format!("- {}\n- b\n  1. {}\n", words(23), words(23));
    let expected = format!("- {}\n  word word\n- b\n  1. {}\n     word word\n", words(21), words(21));
    assert_eq!(wrapped(&text), expected);
}

#[test]
fn code_tables_headings_definitions_and_html_stay() {
    let long = words(30);
    for text in [
        format!("```text\n{long}\n```\n"),
        format!("~~~~\n```\n{long}\n~~~~\n"),
        format!("| {long} |\n|---|\n"),
        format!("# {long}\n"),
        format!("> {long}\n"),
        format!("[name]: https://example.org/ \"{long}\"\n"),
        format!("<p>\n{long}\n</p>\n"),
        format!("text\n\n    {long}\n"),
    ] {
        assert_eq!(wrapped(&text), text);
    }
}

#[test]
fn links_and_code_in_backticks_are_not_broken() {
    let link = format!("[text]({})", "x".repeat(120));
    assert_eq!(wrapped(&format!("see {link} there\n")), format!("see\n{link}\nthere\n"));
    let text = format!("{} `cargo run  --x` end", words(21));
    assert_eq!(wrapped(&text), format!("{}\n`cargo run  --x` end", words(21)));
    let text = format!("{} ``a ` b`` end", words(21));
    assert_eq!(wrapped(&text), format!("{}\n``a ` b`` end", words(21)));
    // An apostrophe of code that nothing closes is a word, and so is code that is longer than a line.
    let text = format!("` {} `{}`", words(21), words(22));
    assert!(wrapped(&text).lines().count() > 1);
}

#[test]
fn no_line_begins_with_a_mark_that_makes_something_else_of_it() {
    for mark in ["-", "+", "*", "#", "12.", "3)", "|", ">", "===", "[a]:"] {
        let filled = wrapped(&format!("{} words {mark} word\n", words(21)));
        assert_eq!(filled, format!("{}\nwords {mark} word\n", words(21)), "{mark}");
    }
}

#[test]
fn hard_breaks_stay() {
    let text = format!("{}  \nnext\n", words(23));
    assert_eq!(wrapped(&text), format!("{}\nword  \nnext\n", words(22)));
    let text = format!("a\\\n{}\n", words(23));
    assert_eq!(wrapped(&text), format!("a\\\n{}\nword\n", words(22)));
}

#[test]
fn comments_are_filled_behind_their_indentation_and_marker() -> Result<()> {
    let text = format!("//! {}\nfn f() {{\n    // {}\n    g();\n}}\n", words(23), words(22));
    let expected = format!(
        "//! {}\n//! word word\nfn f() {{\n    // {}\n    // word word\n    g();\n}}\n",
        words(21),
        words(20)
    );
    assert_eq!(wide_lines_of_rust("a.rs", &text)?, [1, 3]);
    assert_eq!(wrap_rust("a.rs", &text)?, expected);
    assert_eq!(wrap_rust("a.rs", &expected)?, expected);
    Ok(())
}

#[test]
fn strings_are_no_comments_and_comments_behind_code_are_only_judged() -> Result<()> {
    let long = words(30);
    let string = format!("const A: &str = r\"\n// {long}\n// x\";\nfn f() {{}}\n");
    assert_eq!(wide_lines_of_rust("a.rs", &string)?, <[usize; 0]>::default());
    assert_eq!(wrap_rust("a.rs", &string)?, string);
    let behind = format!("const A: &str = \"// {long}\";\nconst B: u8 = 1; // {long}\n");
    assert_eq!(wide_lines_of_rust("a.rs", &behind)?, [2]);
    assert_eq!(wrap_rust("a.rs", &behind)?, behind);
    Ok(())
}

#[test]
fn documentation_keeps_its_code_and_tables() -> Result<()> {
    let text = format!(
        "/// Doc.\n///\n/// ```\n/// {0}\n/// ```\n///\n/// | {0} |\n/// |---|\nfn f() {{}}\n",
        words(30)
    );
    assert_eq!(wide_lines_of_rust("a.rs", &text)?, <[usize; 0]>::default());
    assert_eq!(wrap_rust("a.rs", &text)?, text);
    Ok(())
}

#[test]
fn what_was_drawn_with_spaces_stays() -> Result<()> {
    let text = format!("// A picture:\n//   a --> b {}\n//   c\nfn f() {{}}\n", words(30));
    assert_eq!(wrap_rust("a.rs", &text)?, text);
    Ok(())
}

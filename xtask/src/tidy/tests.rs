//! Tests of all rules together.

use super::*;

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
        ("a/src/mod.rs", &("//! Long.\n".to_owned() + &"\n".repeat(80))),
    ])
    .with_large_file("weights.gguf", 65 << 20);
    let found: Vec<String> = check(&tree)?.into_iter().map(|finding| finding.path).collect();
    assert_eq!(
        found,
        [
            "README.md",
            "a/src/mod.rs",
            "crates/core/Cargo.toml",
            "crates/core/src/lib.rs", // forbid(unsafe_code)
            "crates/core/src/lib.rs", // header
            "crates/core/src/lib.rs", // unsafe
            "docs/a.md",
            "weights.gguf",
        ]
    );
    Ok(())
}

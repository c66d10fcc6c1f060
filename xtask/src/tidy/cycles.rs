//! Modules do not use each other in a circle: what two of them share stands in a third. `cargo xtask metrics`
//! counts the same way.

use anyhow::Result;

use super::Finding;
use crate::metrics::cycles;
use crate::modules;
use crate::tree::Tree;

pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for found in modules::crates(tree)?.iter().filter(|found| found.folder.starts_with("crates/")) {
        findings.extend(cycles::find(found).into_iter().map(|cycle| {
            let message = format!("modules that use each other: {}", cycle.edges.join("; "));
            Finding::of_file(&format!("{}/src", found.folder), message)
        }));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_with_what_closes_it() -> Result<()> {
        let found = |two: &str| -> Result<Vec<String>> {
            let tree = Tree::of_texts(&[
                ("crates/a/Cargo.toml", ""),
                ("crates/a/src/lib.rs", "mod one; mod two;"),
                ("crates/a/src/one.rs", "use crate::two::Two; pub struct One(Two);"),
                ("crates/a/src/two.rs", two),
            ]);
            Ok(check(&tree)?.iter().map(ToString::to_string).collect())
        };
        assert_eq!(found("pub struct Two;")?, <[String; 0]>::default());
        let circle = found("use crate::one::One; pub struct Two(Option<Box<One>>);")?;
        assert_eq!(circle.len(), 1);
        assert!(circle[0].starts_with("crates/a/src: "), "{circle:?}");
        assert!(circle[0].contains("crate::two -> crate::one: One"), "{circle:?}");
        Ok(())
    }
}

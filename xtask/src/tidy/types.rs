//! The `impl` blocks of a type have at most 350 lines together, over all files of its crate, traits included:
//! an object that is spread over several files is as large as before. Larger ones must be listed in the
//! [`super::ratchet`], by the crate's folder and the type's name. Blocks for tests do not count.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Finding;
use super::ratchet::{self, Measured, Ratchet};
use crate::modules::{self, Crate, Definition};
use crate::tree::Tree;

const LONGEST_IMPL_LINES: usize = 350;

pub(crate) fn check(tree: &Tree, listed: &Ratchet) -> Result<Vec<Finding>> {
    let mut types = Vec::new();
    for found in modules::crates(tree)? {
        types.extend(measure(&found));
    }
    Ok(ratchet::judge("the type", &types, LONGEST_IMPL_LINES, &listed.types))
}

/// All types of a crate that have `impl` blocks, with the lines of these; the place is that of the longest
/// block.
pub(crate) fn measure(of: &Crate) -> Vec<Measured> {
    let mut blocks: BTreeMap<Definition, Vec<Block>> = BTreeMap::new();
    for module in of.modules.iter().filter(|module| !module.is_test) {
        for item in &module.items {
            let syn::Item::Impl(item) = item else { continue };
            let syn::Type::Path(name) = &*item.self_ty else { continue };
            let path: Vec<String> =
                name.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            if modules::is_for_tests(&item.attrs) {
                continue;
            }
            // A type of another crate, or of a macro, is not ours to shrink.
            if let Some(definition) = of.definition(&module.path, &path) {
                blocks.entry(definition).or_default().push(Block::of(&module.file, item));
            }
        }
    }
    blocks.into_iter().filter_map(|(definition, blocks)| sum(of, &definition, blocks)).collect()
}

struct Block {
    file: String,
    first_line: usize,
    length_lines: usize,
}

impl Block {
    fn of(file: &str, item: &syn::ItemImpl) -> Self {
        let first_line = item.impl_token.span.start().line;
        let last_line = item.brace_token.span.close().end().line;
        Self { file: file.to_owned(), first_line, length_lines: last_line - first_line + 1 }
    }
}

fn sum(of: &Crate, definition: &Definition, blocks: Vec<Block>) -> Option<Measured> {
    let length_lines = blocks.iter().map(|block| block.length_lines).sum();
    let longest = blocks.into_iter().max_by_key(|block| block.length_lines)?;
    Some(Measured {
        key: format!("{}::{}", of.folder, definition.item),
        path: longest.file,
        line: Some(longest.first_line),
        length_lines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `impl` block of `lines` lines, at least 2.
    fn block(head: &str, lines: usize) -> String {
        format!("impl {head} {{\n{}}}\n", "    const A: u8 = 1;\n".repeat(lines - 2))
    }

    fn found(texts: &[(&str, &str)], ratchet: &str) -> Result<Vec<String>> {
        let mut all = vec![("a/Cargo.toml", ""), (ratchet::PATH, ratchet)];
        all.extend(texts);
        let tree = Tree::of_texts(&all);
        let findings = check(&tree, &Ratchet::of(&tree)?)?;
        Ok(findings.iter().map(Finding::to_string).collect())
    }

    #[test]
    fn blocks_of_one_type_count_together_over_files_and_traits() -> Result<()> {
        let root = "mod one; mod two; pub struct T;\n".to_owned() + &block("T", 50);
        let one = "use super::T;\n".to_owned() + &block("T", 200);
        let two = "use crate::T as Renamed;\n".to_owned() + &block("Trait for Renamed", 100);
        let texts = [("a/src/lib.rs", &*root), ("a/src/one.rs", &*one), ("a/src/two.rs", &*two)];
        assert_eq!(found(&texts, "")?, <[&str; 0]>::default());
        let two = two + &block("Other for Renamed", 2);
        let texts = [("a/src/lib.rs", &*root), ("a/src/one.rs", &*one), ("a/src/two.rs", &*two)];
        assert_eq!(found(&texts, "")?, ["a/src/one.rs:2: the type has 352 lines, more than 350: split it"]);
        assert_eq!(found(&texts, "[types]\n\"a::T\" = 352\n")?, <[&str; 0]>::default());
        assert_eq!(
            found(&texts, "[types]\n\"a::T\" = 360\n")?,
            [format!(
                "a/src/one.rs:2: the type has shrunk to 352 lines: set `a::T` to it in {}, now 360",
                ratchet::PATH
            )]
        );
        Ok(())
    }

    #[test]
    fn types_of_one_name_are_told_apart() -> Result<()> {
        let module = "pub struct T;\n".to_owned() + &block("T", 200);
        let texts =
            [("a/src/lib.rs", "mod one; mod two;"), ("a/src/one.rs", &*module), ("a/src/two.rs", &*module)];
        assert_eq!(found(&texts, "")?, <[&str; 0]>::default());
        Ok(())
    }

    #[test]
    fn blocks_for_tests_and_for_foreign_types_do_not_count() -> Result<()> {
        let text = format!(
            "struct T;\n{}#[cfg(test)]\n{}#[cfg(test)] mod tests {{ use super::T;\n{}}}\n{}",
            block("T", 200),
            block("T", 200),
            block("T", 200),
            block("Trait for Vec<T>", 400)
        );
        assert_eq!(found(&[("a/src/lib.rs", &*text)], "")?, <[&str; 0]>::default());
        Ok(())
    }
}

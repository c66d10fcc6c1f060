//! The files that the rules look at: what git tracks or would track, with the text of those that are text.
//! Built from a checkout, or in memory by tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Larger files are data, whatever they hold; their text is not read.
const LARGEST_TEXT_BYTES: u64 = 1 << 20;

/// A file: its size, and its text if it is UTF-8 and not large.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) size_bytes: u64,
    text: Option<String>,
}

/// All files by their path from the root, with `/` between the parts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
    root: Option<String>,
}

impl Tree {
    /// The checkout that the current folder lies in. Files that git ignores are left out; files that are new
    /// and not yet added are in, so that they are judged before they are committed.
    pub(crate) fn of_checkout() -> Result<Self> {
        let root = PathBuf::from(git(Path::new("."), &["rev-parse", "--show-toplevel"])?.trim_end());
        let list = git(&root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let mut files = BTreeMap::new();
        for path in list.split_terminator('\0') {
            let full = root.join(path);
            // Gone from the work tree but not yet from the index, or a link: not ours to judge.
            let Ok(metadata) = full.symlink_metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            let size_bytes = metadata.len();
            let text = if size_bytes <= LARGEST_TEXT_BYTES {
                let bytes =
                    std::fs::read(&full).with_context(|| format!("cannot read {}", full.display()))?;
                String::from_utf8(bytes).ok()
            } else {
                None
            };
            files.insert(path.to_owned(), File { size_bytes, text });
        }
        Ok(Self { files, root: root.to_str().map(str::to_owned) })
    }

    /// Where the checkout is on this machine.
    pub(crate) fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &File)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// The text files whose path ends with `end`.
    pub(crate) fn texts<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(end))
            .filter_map(|(path, file)| Some((path.as_str(), file.text.as_deref()?)))
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.text.as_deref()
    }

    /// Is there a file, or a folder with a file in it, at this path?
    pub(crate) fn contains(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.range(folder.clone()..).next().is_some_and(|(next, _)| next.starts_with(&folder))
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .output()
        .context("cannot run git, which tidy asks for the list of files")?;
    ensure!(
        output.status.success(),
        "`git {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    String::from_utf8(output.stdout).context("a path in the repository is not UTF-8")
}

#[cfg(test)]
impl Tree {
    /// A tree of text files: (path, text).
    pub(crate) fn of_texts(texts: &[(&str, &str)]) -> Self {
        let file = |text: &str| File { size_bytes: text.len() as u64, text: Some(text.to_owned()) };
        let files = texts.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect();
        Self { files, root: None }
    }

    /// The same in a checkout at this place.
    pub(crate) fn at(self, root: &str) -> Self {
        Self { root: Some(root.to_owned()), ..self }
    }

    /// Adds a file that is not text.
    pub(crate) fn with_large_file(mut self, path: &str, size_bytes: u64) -> Self {
        self.files.insert(path.to_owned(), File { size_bytes, text: None });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_contained_but_beginnings_of_names_are_not() {
        let tree = Tree::of_texts(&[("docs/a.md", ""), ("docs-old.md", "")]);
        for (path, expected) in [
            ("", true),
            ("docs", true),
            ("docs/a.md", true),
            ("docs/a", false),
            ("doc", false),
            ("docs-old", false),
        ] {
            assert_eq!(tree.contains(path), expected, "{path:?}");
        }
    }

    #[test]
    fn this_checkout_has_this_file_and_nothing_that_was_built() -> Result<()> {
        // Sources without their history can be tested too, but have no checkout to look at.
        if !Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.git")).exists() {
            return Ok(());
        }
        let tree = Tree::of_checkout()?;
        assert!(tree.text("xtask/src/tree.rs").is_some());
        assert!(!tree.contains("target"));
        Ok(())
    }
}

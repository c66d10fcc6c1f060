//! No file above 64 MB: a clone stays quick, and hosts of git refuse files of 100 MB.

use super::Finding;
use crate::tree::Tree;

const LARGEST_BYTES: u64 = 64 << 20;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files()
        .filter(|(_, file)| file.size_bytes > LARGEST_BYTES)
        .map(|(path, file)| {
            let size_mib = file.size_bytes >> 20;
            Finding::of_file(
                path,
                format!("{size_mib} MiB; a file of this repository has at most {} MiB", LARGEST_BYTES >> 20),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_above_the_limit_is_found() {
        let tree = Tree::default()
            .with_large_file("at.gguf", 64 << 20)
            .with_large_file("above.gguf", (64 << 20) + 1);
        assert_eq!(check(&tree).into_iter().map(|finding| finding.path).collect::<Vec<_>>(), ["above.gguf"]);
    }
}

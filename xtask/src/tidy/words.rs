//! Words that must not stay in the repository: a `TODO` or `FIXME` that no issue tracks (`TODO(#12)` is
//! fine), an `#[ignore]` without an issue (`#[ignore = "#12: …"]` is fine), and paths of the machine that
//! somebody worked on.

use super::Finding;
use crate::tree::Tree;

/// Data, not text of ours; and the tests of this rule, which must name what it looks for.
const LEFT_OUT: [&str; 5] = [
    "assets/demo/heldout",
    "assets/demo/provenance/train-log.txt",
    "crates/ui/assets",
    "xtask/src/tidy/words.rs",
    "Cargo.lock",
];

const MARKERS: [&str; 2] = ["TODO", "FIXME"];

/// Where home folders are. What stands before a path tells it from a part of a longer one.
const MACHINE_PATHS: [&str; 3] = ["/root/", "/home/", "/Users/"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Wherever this checkout is, that path is one of this machine, too.
    let machine_paths: Vec<&str> = MACHINE_PATHS.into_iter().chain(tree.root()).collect();
    for (path, text) in tree.texts("") {
        if LEFT_OUT.iter().any(|left_out| path.starts_with(left_out)) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let messages = [judge_markers(line), judge_ignore(path, line), judge_paths(line, &machine_paths)];
            findings
                .extend(messages.into_iter().flatten().map(|message| Finding::at(path, index + 1, message)));
        }
    }
    findings
}

fn judge_markers(line: &str) -> Option<String> {
    MARKERS.iter().find_map(|marker| {
        let untracked = line.match_indices(marker).any(|(start, _)| {
            let (before, after) = (&line[..start], &line[start + marker.len()..]);
            let is_word = !before.ends_with(is_word_char) && !after.starts_with(is_word_char);
            is_word && !after.strip_prefix('(').is_some_and(starts_with_issue)
        });
        untracked.then(|| format!("`{marker}` without an issue: write `{marker}(#12)`, or do it"))
    })
}

fn judge_ignore(path: &str, line: &str) -> Option<String> {
    let attribute = line.trim_start();
    let rest = attribute.strip_prefix("#[ignore")?;
    let names_issue = rest.match_indices('#').any(|(start, _)| starts_with_issue(&rest[start..]));
    (path.ends_with(".rs") && !names_issue)
        .then(|| "a test is ignored without an issue: write `#[ignore = \"#12: why\"]`".to_owned())
}

fn judge_paths(line: &str, machine_paths: &[&str]) -> Option<String> {
    machine_paths.iter().find_map(|machine_path| {
        let named = line.match_indices(machine_path).any(|(start, _)| {
            !line[..start]
                .ends_with(|c: char| is_word_char(c) || matches!(c, '.' | '-' | '/' | '}' | ')' | '~' | '"'))
        });
        named.then(|| format!("`{machine_path}…` is a path of one machine"))
    })
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `#12…`
fn starts_with_issue(text: &str) -> bool {
    text.strip_prefix('#').is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<Option<usize>> {
        check(&Tree::of_texts(&[(path, text)])).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_marker_needs_an_issue() {
        assert_eq!(found("a.rs", "\n// TODO: later\n"), [Some(2)]);
        assert_eq!(found("a.md", "FIXME(me)\n"), [Some(1)]);
        assert_eq!(found("Makefile", "# TODO(#12): later, TODO(#)\n"), [Some(1)]);
        assert_eq!(found("a.rs", "// TODO(#12): later\n// MASTODON, TODOS, XTODO_LIST\n"), []);
    }

    #[test]
    fn an_ignored_test_needs_an_issue() {
        assert_eq!(found("a.rs", "    #[ignore]\n"), [Some(1)]);
        assert_eq!(found("a.rs", "#[ignore = \"slow\"]\n"), [Some(1)]);
        assert_eq!(found("a.rs", "#[ignore = \"#12: needs 17 GB\"]\n"), []);
        assert_eq!(found("a.md", "`#[ignore]`\n"), []);
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        assert_eq!(found("a.md", "see /Users/me/notes\n"), [Some(1)]);
        assert_eq!(found("a.py", "open('/home/me/x')\n"), [Some(1)]);
        assert_eq!(found("a.sh", "cd $x/root/x; cat ./root/x ../home/y a/Users/b ${x}/home/y\n"), []);
        let tree = Tree::of_texts(&[("a.sh", "cd /srv/build/hypura/target; cd /srv/build\n")]);
        assert_eq!(check(&tree).len(), 0);
        assert_eq!(check(&tree.at("/srv/build/hypura")).len(), 1);
    }

    #[test]
    fn data_is_left_out() {
        assert_eq!(found("assets/demo/heldout.txt", "TODO\n"), []);
    }
}

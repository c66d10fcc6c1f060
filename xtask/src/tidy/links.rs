//! Links of Markdown files to files of this repository lead somewhere. Links to the web are not followed; of
//! `file.md#part` only the file is looked for. Code, fenced or between backticks, has no links.

use super::Finding;
use crate::tree::Tree;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(".md") {
        let mut fenced = false;
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                let dead = targets(line).into_iter().filter(|target| !leads_somewhere(tree, path, target));
                findings.extend(dead.map(|target| {
                    Finding::at(path, index + 1, format!("the link to `{target}` leads nowhere"))
                }));
            }
        }
    }
    findings
}

/// Targets of `[text](target)`, `![text](target "title")` and `[name]: target` on a line.
fn targets(line: &str) -> Vec<String> {
    // Every other part between backticks is code.
    let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let definition = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
        .and_then(|(_, target)| target.split_whitespace().next());
    inline.chain(definition).map(|target| target.trim_matches(['<', '>']).to_owned()).collect()
}

fn leads_somewhere(tree: &Tree, from: &str, target: &str) -> bool {
    let is_url = target.split_once(':').is_some_and(|(scheme, _)| scheme.chars().all(char::is_alphanumeric));
    let file = target.split('#').next().unwrap_or_default();
    if is_url || file.is_empty() {
        return true;
    }
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let start = if file.starts_with('/') { "" } else { folder };
    resolve(start, file).is_some_and(|path| tree.contains(&path))
}

/// `file` as seen from `folder`, without `.` and `..`; `None` if it leads out of the repository.
fn resolve(folder: &str, file: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(file.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines with a dead link in `docs/a.md` with this text, beside `README.md` and `docs/b.md`.
    fn found(text: &str) -> Vec<Option<usize>> {
        let tree = Tree::of_texts(&[("README.md", ""), ("docs/a.md", text), ("docs/b.md", "")]);
        check(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn links_to_files_and_folders_are_resolved_from_the_file() {
        assert_eq!(
            found("[b](b.md) [up](../README.md) [top](/README.md) [folder](../docs/) [part](b.md#part)\n"),
            []
        );
        assert_eq!(found("\n[c](c.md)\n"), [Some(2)]);
        assert_eq!(found("[b](docs/b.md)\n"), [Some(1)]);
        assert_eq!(found("[out](../../elsewhere.md)\n"), [Some(1)]);
    }

    #[test]
    fn all_forms_of_links_are_seen() {
        assert_eq!(found("[b](b.md), then [c](c.md \"title\") and ![d](d.png)\n"), [Some(1), Some(1)]);
        assert_eq!(found("[`code`](c.md)\n"), [Some(1)]);
        assert_eq!(found("[name]: c.md\n[other]: b.md\n"), [Some(1)]);
        assert_eq!(found("[c](<c.md>)\n"), [Some(1)]);
    }

    #[test]
    fn the_web_parts_of_the_page_and_code_are_left_alone() {
        assert_eq!(found("[a](https://example.org/x.md) [b](mailto:a@example.org) [c](#part)\n"), []);
        assert_eq!(found("`[c](c.md)`\n```\n[c](c.md)\n```\n"), []);
        assert_eq!(found("```\n```\n[c](c.md)\n"), [Some(3)]);
    }
}

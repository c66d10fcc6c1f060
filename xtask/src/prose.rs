//! Prose: the comments of Rust files and the text of Markdown files, which have at most [`WIDEST`] columns,
//! as code has by `rustfmt.toml`. Here are what counts as too wide, and how paragraphs are filled anew
//! (`cargo xtask wrap`).
//!
//! Only paragraphs and list items are judged and filled. Code, tables, headings, link definitions and HTML
//! stay as they are, and so does a word that is wider than a line by itself, such as a link. A paragraph
//! without a line that is too wide is never touched, so filling twice is filling once.

mod blocks;
mod comments;
mod fill;

use anyhow::Result;

use blocks::Block;
use comments::Run;

/// Columns of a line, `max_width` of `rustfmt.toml`.
pub(crate) const WIDEST: usize = 110;

/// Numbers of the lines (from 1) of a Markdown file that are too wide.
pub(crate) fn wide_lines_of_document(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    wide_lines(&lines, 0).into_iter().map(|index| index + 1).collect()
}

/// Numbers of the lines (from 1) of a Rust file with a comment that is too wide.
///
/// # Errors
/// The text is no Rust.
pub(crate) fn wide_lines_of_rust(path: &str, text: &str) -> Result<Vec<usize>> {
    let comments = comments::find(path, text)?;
    let mut found = Vec::new();
    for run in &comments.runs {
        found.extend(
            wide_lines(&run.lines, run.prefix_columns()).into_iter().map(|index| run.first_line + index),
        );
    }
    let lines: Vec<&str> = text.lines().collect();
    found.extend(comments.trailing.into_iter().filter(|line| columns(lines[line - 1]) > WIDEST));
    found.sort_unstable();
    Ok(found)
}

/// The Markdown file with the paragraphs that are too wide filled anew.
pub(crate) fn wrap_document(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    join(wrap(&lines, 0), text)
}

/// The Rust file with the comments that are too wide filled anew. Comments behind code stay as they are.
///
/// # Errors
/// The text is no Rust.
pub(crate) fn wrap_rust(path: &str, text: &str) -> Result<String> {
    let mut wrapped: Vec<String> = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut next = 0;
    for run in comments::find(path, text)?.runs {
        wrapped.extend(lines[next..run.first_line - 1].iter().map(|line| (*line).to_owned()));
        wrapped.extend(wrap(&run.lines, run.prefix_columns()).into_iter().map(|line| run.line(&line)));
        next = run.first_line - 1 + run.lines.len();
    }
    wrapped.extend(lines[next..].iter().map(|line| (*line).to_owned()));
    Ok(join(wrapped, text))
}

fn join(lines: Vec<String>, original: &str) -> String {
    let mut text = lines.join("\n");
    if original.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Indices of the lines that are too wide behind a prefix of so many columns.
fn wide_lines(lines: &[&str], prefix_columns: usize) -> Vec<usize> {
    let mut found = Vec::new();
    for block in blocks::split(lines) {
        let Block::Paragraph { lines: range, .. } = block else { continue };
        found.extend(range.filter(|&index| is_too_wide(lines[index], prefix_columns)));
    }
    found
}

/// Is the line wider than it should be, and can it be broken?
fn is_too_wide(line: &str, prefix_columns: usize) -> bool {
    prefix_columns + columns(line) > WIDEST && fill::words(blocks::without_bullet(line)).len() > 1
}

fn wrap(lines: &[&str], prefix_columns: usize) -> Vec<String> {
    let mut wrapped = Vec::new();
    for block in blocks::split(lines) {
        match block {
            Block::Paragraph { lines: range, first, rest }
                if range.clone().any(|index| is_too_wide(lines[index], prefix_columns)) =>
            {
                wrapped.extend(fill::fill(&lines[range], &first, &rest, WIDEST - prefix_columns));
            }
            Block::Paragraph { lines: range, .. } | Block::Kept { lines: range } => {
                wrapped.extend(lines[range].iter().map(|line| (*line).to_owned()));
            }
        }
    }
    wrapped
}

fn columns(line: &str) -> usize {
    line.chars().count()
}

impl Run<'_> {
    /// A line of this comment with this text.
    fn line(&self, text: &str) -> String {
        let space = if text.is_empty() { "" } else { " " };
        format!("{}{}{space}{text}", self.indent, self.marker)
    }

    fn prefix_columns(&self) -> usize {
        columns(self.indent) + columns(self.marker) + 1
    }
}

#[cfg(test)]
mod tests;

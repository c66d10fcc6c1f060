//! Where the comments of a Rust file are. What looks like a comment inside of a string is none.

use std::collections::BTreeMap;

use anyhow::Result;
use proc_macro2::{LineColumn, TokenStream, TokenTree};

use crate::rust;

/// Longer markers first: each begins with the last.
const MARKERS: [&str; 4] = ["////", "///", "//!", "//"];

/// The comments of a file.
pub(super) struct Comments<'a> {
    /// Comments that have their lines for themselves.
    pub(super) runs: Vec<Run<'a>>,
    /// Numbers of the lines where a comment stands behind code.
    pub(super) trailing: Vec<usize>,
}

/// Neighbouring lines of one kind of comment at one indentation.
pub(super) struct Run<'a> {
    /// From 1.
    pub(super) first_line: usize,
    pub(super) indent: &'a str,
    pub(super) marker: &'a str,
    /// What stands behind the marker, without the one space that parts them.
    pub(super) lines: Vec<&'a str>,
}

pub(super) fn find<'a>(path: &str, text: &'a str) -> Result<Comments<'a>> {
    let mut code = Code::default();
    code.add(rust::tokens(path, text)?);
    let mut comments = Comments { runs: Vec::new(), trailing: Vec::new() };
    for (number, line) in (1..).zip(text.lines()) {
        if code.is_inside_literal(number) {
            continue;
        }
        match parts(line) {
            Some((indent, marker, words)) => comments.push(number, indent, marker, words),
            None if code.rest(number, line).starts_with("//") => comments.trailing.push(number),
            None => {}
        }
    }
    Ok(comments)
}

impl<'a> Comments<'a> {
    fn push(&mut self, number: usize, indent: &'a str, marker: &'a str, words: &'a str) {
        match self.runs.last_mut() {
            Some(run)
                if run.indent == indent
                    && run.marker == marker
                    && run.first_line + run.lines.len() == number =>
            {
                run.lines.push(words);
            }
            _ => self.runs.push(Run { first_line: number, indent, marker, lines: vec![words] }),
        }
    }
}

/// Indentation, marker and words of a line that is nothing but a comment.
fn parts(line: &str) -> Option<(&str, &str, &str)> {
    let words = line.trim_start();
    let indent = &line[..line.len() - words.len()];
    let marker = MARKERS.into_iter().find(|marker| words.starts_with(marker))?;
    let (marker, words) = words.split_at(marker.len());
    Some((indent, marker, words.strip_prefix(' ').unwrap_or(words)))
}

/// Which parts of a file are tokens of code.
#[derive(Default)]
struct Code {
    /// Column behind the last token, by line.
    ends: BTreeMap<usize, usize>,
    /// First and last lines of literals that have several.
    literals: Vec<(usize, usize)>,
}

impl Code {
    fn add(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => {
                    self.end_at(group.span_open().end());
                    self.add(group.stream());
                    self.end_at(group.span_close().end());
                }
                TokenTree::Literal(literal) => {
                    let (start, end) = (literal.span().start(), literal.span().end());
                    if start.line < end.line {
                        self.literals.push((start.line, end.line));
                    }
                    self.end_at(end);
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => self.end_at(token.span().end()),
            }
        }
    }

    fn end_at(&mut self, place: LineColumn) {
        let column = self.ends.entry(place.line).or_default();
        *column = place.column.max(*column);
    }

    /// Does the line begin inside of a literal?
    fn is_inside_literal(&self, line: usize) -> bool {
        self.literals.iter().any(|&(first, last)| first < line && line <= last)
    }

    /// What stands behind the code of a line.
    fn rest<'a>(&self, number: usize, line: &'a str) -> &'a str {
        let column = self.ends.get(&number).copied().unwrap_or_default();
        line.char_indices().nth(column).map_or("", |(start, _)| &line[start..]).trim_start()
    }
}

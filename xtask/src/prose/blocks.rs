//! Markdown in blocks: paragraphs and list items, which can be filled, and everything else, which stays as it
//! is. Rust's plain comments are read as Markdown too.

use std::ops::Range;

/// A stretch of lines. Blocks follow each other without gaps.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// Text to fill: what its first line begins with (indentation and bullet), and the others.
    Paragraph { lines: Range<usize>, first: String, rest: String },
    /// Code, tables, headings, link definitions, HTML, empty lines.
    Kept { lines: Range<usize> },
}

pub(super) fn split(lines: &[&str]) -> Vec<Block> {
    let mut splitter =
        Splitter { blocks: Vec::new(), text_columns: 0, is_open: false, fence: None, in_html: false };
    for (index, line) in lines.iter().enumerate() {
        splitter.add(index, line);
    }
    splitter.blocks
}

/// The text of a line without the bullet or number of a list item.
pub(super) fn without_bullet(line: &str) -> &str {
    let text = line.trim_start();
    &text[bullet_length(text).unwrap_or_default()..]
}

struct Splitter<'a> {
    blocks: Vec<Block>,
    /// Where the text of the current list item or paragraph begins.
    text_columns: usize,
    /// May the next line continue the last block?
    is_open: bool,
    /// What closes the code block that is open.
    fence: Option<&'a str>,
    in_html: bool,
}

impl<'a> Splitter<'a> {
    fn add(&mut self, index: usize, line: &'a str) {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(fence) = self.fence {
            if text.starts_with(fence) {
                self.fence = None;
            }
            return self.keep(index);
        }
        if let Some(fence) = fence(text) {
            self.fence = Some(fence);
            return self.keep(index);
        }
        if text.is_empty() {
            self.in_html = false;
            return self.keep(index);
        }
        self.in_html |= text.starts_with('<') && !text.starts_with("<http");
        if self.in_html || is_fixed(text) {
            return self.keep(index);
        }
        if let Some(length) = bullet_length(text) {
            self.text_columns = indent + length;
            return self.begin(index, line, self.text_columns);
        }
        // Deeper than the text around it: code, or something that was drawn.
        let deepest = self.text_columns + if self.is_open { 1 } else { 3 };
        if indent > deepest {
            return self.keep(index);
        }
        match self.blocks.last_mut() {
            Some(Block::Paragraph { lines, .. }) if self.is_open => lines.end = index + 1,
            _ => {
                self.text_columns = indent;
                self.begin(index, line, indent);
            }
        }
        self.end_at_break(line);
    }

    fn begin(&mut self, index: usize, line: &str, text_columns: usize) {
        let first = line[..text_columns].to_owned();
        self.blocks.push(Block::Paragraph { lines: index..index + 1, first, rest: " ".repeat(text_columns) });
        self.is_open = true;
        self.end_at_break(line);
    }

    /// Two spaces or a backslash at the end of a line break it where it is rendered, too.
    fn end_at_break(&mut self, line: &str) {
        if line.ends_with("  ") || line.ends_with('\\') {
            self.is_open = false;
        }
    }

    fn keep(&mut self, index: usize) {
        self.is_open = false;
        match self.blocks.last_mut() {
            Some(Block::Kept { lines }) => lines.end = index + 1,
            _ => self.blocks.push(Block::Kept { lines: index..index + 1 }),
        }
    }
}

/// The fence that opens a block of code.
fn fence(text: &str) -> Option<&str> {
    ["`", "~"].into_iter().find_map(|mark| {
        let length = text.len() - text.trim_start_matches(mark).len();
        (length >= 3).then(|| &text[..length])
    })
}

/// Tables, headings, quotations, rules and link definitions.
fn is_fixed(text: &str) -> bool {
    let heading = text.trim_start_matches('#');
    let is_rule =
        text.len() >= 3 && ['-', '=', '*'].into_iter().any(|mark| text.trim_matches(mark).is_empty());
    text.starts_with(['|', '>'])
        || heading.len() < text.len() && (heading.is_empty() || heading.starts_with(' '))
        || is_rule
        || text.starts_with('[') && text.contains("]: ")
}

/// Length of `- ` or `1. ` with the spaces behind it.
fn bullet_length(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mark = match digits {
        0 => text.strip_prefix(['-', '*', '+'])?,
        1..=3 => text[digits..].strip_prefix(['.', ')'])?,
        _ => return None,
    };
    let words = mark.trim_start_matches(' ');
    (words.len() < mark.len() && !words.is_empty()).then(|| text.len() - words.len())
}

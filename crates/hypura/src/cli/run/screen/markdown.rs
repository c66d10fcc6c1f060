//! A little Markdown on a terminal: bold, inline code, blocks of code, lists, headings, quotes; and lines
//! that break between words. The text comes in pieces that end anywhere; of each, whatever is certain is
//! shown.
//!
//! What is no Markdown stays as it was written, and nothing but markers is ever left out.

use unicode_width::UnicodeWidthChar as _;

use super::line::{Lead, lead_of};

const BOLD: (&str, &str) = ("\u{1b}[1m", "\u{1b}[22m");
const CODE: (&str, &str) = ("\u{1b}[36m", "\u{1b}[39m");
const DIM: (&str, &str) = ("\u{1b}[2m", "\u{1b}[22m");
/// Narrower terminals break lines themselves.
const LEAST_WIDTH: usize = 20;

/// What a line is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Its beginning is still being read.
    Begins,
    Text,
    Heading,
    /// As it is: code, or a row of a table.
    Verbatim,
    /// The line that begins or ends code.
    Fence,
}

/// A text on its way to a terminal.
#[derive(Debug)]
pub(super) struct Markdown {
    /// Columns; 0: lines are not broken.
    width: usize,
    /// Whether markers are shown as what they mean.
    styled: bool,
    out: String,
    line: Line,
    /// The beginning of a line.
    lead: String,
    in_code: bool,
    /// A word that has not ended, and how wide it is.
    word: (String, usize),
    blanks: usize,
    column: usize,
    /// Where lines go on that were broken.
    indent: usize,
    bold: bool,
    code: bool,
    /// A star that may be the first of two.
    star: bool,
}

impl Markdown {
    /// For a terminal of so many columns; 0: lines are not broken.
    pub fn new(width: usize, styled: bool) -> Self {
        Self {
            width: if width < LEAST_WIDTH { 0 } else { width },
            styled,
            out: String::new(),
            line: Line::Begins,
            lead: String::new(),
            in_code: false,
            word: (String::new(), 0),
            blanks: 0,
            column: 0,
            indent: 0,
            bold: false,
            code: false,
            star: false,
        }
    }

    /// What to show of the next piece.
    pub fn push(&mut self, piece: &str) -> String {
        piece.chars().for_each(|c| self.take(c));
        std::mem::take(&mut self.out)
    }

    /// What was held back, and the end of all styles. Does not end the line.
    pub fn end(&mut self) -> String {
        self.begin_line(true);
        self.end_text();
        if self.line == Line::Heading || self.line == Line::Fence {
            self.style(DIM.1);
        }
        if self.in_code {
            self.style(CODE.1);
        }
        self.line = Line::Begins;
        self.in_code = false;
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, c: char) {
        if c == '\n' {
            self.end_line();
            return;
        }
        match self.line {
            Line::Begins => {
                self.lead.push(c);
                self.begin_line(false);
            }
            Line::Text | Line::Heading => self.text(c),
            Line::Verbatim | Line::Fence => self.out.push(c),
        }
    }

    fn end_line(&mut self) {
        if self.line == Line::Begins {
            self.begin_line(true);
        }
        self.end_text();
        match self.line {
            Line::Heading => self.style(BOLD.1),
            Line::Fence => {
                self.style(DIM.1);
                if self.in_code {
                    self.style(CODE.0);
                }
            }
            Line::Begins | Line::Text | Line::Verbatim => {}
        }
        self.out.push('\n');
        self.line = Line::Begins;
        (self.column, self.blanks, self.indent) = (0, 0, 0);
    }

    /// Decides what the line is as soon as its beginning says so.
    fn begin_line(&mut self, whole: bool) {
        if self.line != Line::Begins || (self.lead.is_empty() && whole) {
            return;
        }
        let lead = match (self.styled, lead_of(&self.lead, whole)) {
            (_, Lead::Open) => return,
            // The line is shown as it is written, but code and tables are not broken.
            (false, lead @ (Lead::Fence | Lead::Row)) => lead,
            (false, _) if self.in_code => Lead::Row,
            (false, _) => Lead::Plain,
            (true, lead) if self.in_code && lead != Lead::Fence => Lead::Row,
            (true, lead) => lead,
        };
        let text = std::mem::take(&mut self.lead);
        let blanks = text.len() - text.trim_start_matches(' ').len();
        match lead {
            Lead::Fence => self.fence(&text),
            Lead::Row => {
                self.line = Line::Verbatim;
                self.out.push_str(&text);
            }
            Lead::Heading => {
                self.line = Line::Heading;
                self.style(BOLD.0);
            }
            Lead::Bullet => self.item(&format!("{}• ", &text[..blanks]), blanks + 2, ""),
            Lead::Number => self.item(&text, text.len(), ""),
            Lead::Quote => {
                let rest = text.trim_start().trim_start_matches('>').trim_start().to_owned();
                self.item(&format!("{}│{} ", DIM.0, DIM.1), 2, &rest);
            }
            Lead::Open | Lead::Plain => {
                self.line = Line::Text;
                text.chars().for_each(|c| self.text(c));
            }
        }
    }

    fn fence(&mut self, text: &str) {
        self.line = Line::Fence;
        if self.in_code {
            self.style(CODE.1);
        }
        self.in_code = !self.in_code;
        self.style(DIM.0);
        self.out.push_str(text);
    }

    /// A line with a marker of this width, behind which its text goes on.
    fn item(&mut self, marker: &str, width: usize, rest: &str) {
        self.line = Line::Text;
        self.out.push_str(marker);
        (self.column, self.indent) = (width, width);
        rest.chars().for_each(|c| self.text(c));
    }

    fn text(&mut self, c: char) {
        if self.styled && !self.code && c == '*' {
            if std::mem::take(&mut self.star) {
                self.bold = !self.bold;
                self.word.0.push_str(if self.bold { BOLD.0 } else { BOLD.1 });
            } else {
                self.star = true;
            }
            return;
        }
        self.end_star();
        match c {
            ' ' | '\t' => {
                self.end_word();
                self.blanks += 1;
            }
            '`' if self.styled => {
                self.code = !self.code;
                self.word.0.push_str(if self.code { CODE.0 } else { CODE.1 });
            }
            _ => {
                let width = c.width().unwrap_or(0);
                self.word.0.push(c);
                self.word.1 += width;
                // Scripts without blanks break between any two signs.
                if width == 2 {
                    self.end_word();
                }
            }
        }
    }

    /// A single star is a star.
    fn end_star(&mut self) {
        if std::mem::take(&mut self.star) {
            self.word.0.push('*');
            self.word.1 += 1;
        }
    }

    fn end_word(&mut self) {
        let (word, width) = std::mem::take(&mut self.word);
        if word.is_empty() {
            return;
        }
        let blanks = std::mem::take(&mut self.blanks);
        let end = self.column + blanks + width;
        if self.width > 0 && end > self.width && self.column > self.indent {
            self.out.push('\n');
            self.out.push_str(&" ".repeat(self.indent));
            self.column = self.indent + width;
        } else {
            self.out.push_str(&" ".repeat(blanks));
            self.column = end;
        }
        self.out.push_str(&word);
        if self.width > 0 {
            // The terminal broke what is longer than a line.
            self.column = if self.column > self.width { self.column % self.width } else { self.column };
        }
    }

    /// The last word, and the end of what lasts no longer than a line.
    fn end_text(&mut self) {
        self.end_star();
        if std::mem::take(&mut self.bold) {
            self.word.0.push_str(BOLD.1);
        }
        if std::mem::take(&mut self.code) {
            self.word.0.push_str(CODE.1);
        }
        self.end_word();
        self.blanks = 0;
    }

    fn style(&mut self, style: &str) {
        if self.styled {
            self.out.push_str(style);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(width: usize, styled: bool, text: &str) -> String {
        let mut markdown = Markdown::new(width, styled);
        let mut out = markdown.push(text);
        out.push_str(&markdown.end());
        out
    }

    fn without_styles(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            out.push_str(before);
            rest = after.split_once('m').map_or("", |(_, rest)| rest);
        }
        out + rest
    }

    #[test]
    fn markers_become_styles() {
        assert_eq!(
            shown(0, true, "a **b c** `d` e*f*"),
            "a \u{1b}[1mb c\u{1b}[22m \u{1b}[36md\u{1b}[39m e*f*"
        );
        assert_eq!(shown(0, true, "## Title\nx"), "\u{1b}[1mTitle\u{1b}[22m\nx");
        assert_eq!(shown(0, true, "- one\n  * two\n3. x"), "• one\n  • two\n3. x");
        assert_eq!(shown(0, true, "2 * 3 ** x"), "2 * 3 \u{1b}[1m x\u{1b}[22m");
        assert_eq!(without_styles(&shown(0, true, "> said\nx")), "│ said\nx");
    }

    #[test]
    fn code_is_as_it_was_written() {
        let text = "```rust\nlet a = **b; # c\n- d\n```\nend **x**\n";
        let out = shown(30, true, text);
        assert!(out.contains("let a = **b; # c\n- d\n"), "{out:?}");
        assert_eq!(without_styles(&out), "```rust\nlet a = **b; # c\n- d\n```\nend x\n");
        // A line of code is longer than the terminal is wide.
        let long = format!("```\n{}\n```", "word ".repeat(20));
        assert_eq!(without_styles(&shown(30, true, &long)), long);
        assert_eq!(without_styles(&shown(30, false, &long)), long);
    }

    #[test]
    fn lines_break_between_words_and_go_on_below_the_text_of_an_item() {
        let text = "one two three four five six seven eight\n- one two three four five six seven";
        assert_eq!(
            shown(20, true, text),
            "one two three four\nfive six seven eight\n• one two three four\n  five six seven"
        );
        assert_eq!(shown(0, true, "a b  c"), "a b  c");
        assert_eq!(shown(10, true, "one two three four"), "one two three four", "too narrow to be helped");
        assert_eq!(shown(20, true, &"字".repeat(12)), format!("{}\n字字", "字".repeat(10)));
    }

    #[test]
    fn without_styles_a_text_is_as_it_was_written() {
        let text = "# a\n- **b** `c`\n> d\n";
        assert_eq!(shown(0, false, text), text);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_pieces_end(text in "[ab *`#>|\n0-9.-]{0,60}", size in 1usize..8, wrap in any::<bool>()) {
            let width = if wrap { 24 } else { 0 };
            let whole = shown(width, true, &text);
            let mut markdown = Markdown::new(width, true);
            let mut pieces = String::new();
            for chunk in text.chars().collect::<Vec<_>>().chunks(size) {
                pieces.push_str(&markdown.push(&chunk.iter().collect::<String>()));
            }
            pieces.push_str(&markdown.end());
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn letters_are_never_lost(text in "[a-z *`#>|\n0-9.-]{0,80}") {
            let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
            prop_assert_eq!(letters(&without_styles(&shown(24, true, &text))), letters(&text));
        }
    }
}

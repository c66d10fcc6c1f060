//! What a model thinks before it answers: shown dimmed on stderr, and no part of the answer.

use std::io::{self, Write as _};

use super::output::harmless;
use crate::cli::style::Style;

/// The tags of nearly all models that think in their text.
const BEGIN: &str = "<think>";
const END: &str = "</think>";

/// A piece of what a model writes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::run) enum Said {
    Thought(String),
    Answer(String),
}

/// Where in its text the model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Beginning,
    Thought,
    /// Between the thought and the first letter of the answer.
    Gap,
    Answer,
}

/// Tells thoughts from answers in a text that comes in pieces.
#[derive(Debug)]
pub(in crate::cli::run) struct Thoughts {
    at: At,
    /// What may be the beginning of a tag.
    held: String,
}

impl Thoughts {
    /// Of an answer to this prompt, which may have begun the thought. Models that do not think have none.
    pub fn after(prompt: &str, thinks: bool) -> Self {
        let at = match (thinks, prompt.trim_end().ends_with(BEGIN)) {
            (false, _) => At::Answer,
            (true, false) => At::Beginning,
            (true, true) => At::Thought,
        };
        Self { at, held: String::new() }
    }

    /// The next piece, in parts.
    pub fn push(&mut self, piece: &str) -> Vec<Said> {
        self.held.push_str(piece);
        let mut said = Vec::new();
        loop {
            match self.at {
                At::Beginning => {
                    let text = self.held.trim_start();
                    if let Some(rest) = text.strip_prefix(BEGIN) {
                        (self.at, self.held) = (At::Thought, rest.to_owned());
                    } else if BEGIN.starts_with(text) {
                        return said;
                    } else {
                        self.at = At::Answer;
                    }
                }
                At::Thought => match self.held.split_once(END) {
                    Some((thought, rest)) => {
                        said.push(Said::Thought(thought.to_owned()));
                        (self.at, self.held) = (At::Gap, rest.to_owned());
                    }
                    None => {
                        let keep = end_that_begins(&self.held, END);
                        let rest = self.held.split_off(self.held.len() - keep);
                        said.push(Said::Thought(std::mem::replace(&mut self.held, rest)));
                        return said;
                    }
                },
                At::Gap => {
                    self.held = self.held.trim_start().to_owned();
                    if self.held.is_empty() {
                        return said;
                    }
                    self.at = At::Answer;
                }
                At::Answer => {
                    said.push(Said::Answer(std::mem::take(&mut self.held)));
                    return said;
                }
            }
        }
    }

    /// What was held back.
    pub fn end(&mut self) -> Option<Said> {
        let held = std::mem::take(&mut self.held);
        let said = if self.at == At::Thought { Said::Thought(held) } else { Said::Answer(held) };
        (said != Said::Answer(String::new())).then_some(said)
    }
}

/// How many bytes at the end of `text` may be the beginning of `tag`.
fn end_that_begins(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|length| text.ends_with(&tag[..*length])).unwrap_or(0)
}

/// Thoughts on stderr.
#[derive(Default)]
pub(in crate::cli::run) struct Thinking {
    open: bool,
}

impl Thinking {
    /// Shows more of it.
    pub fn show(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.open = true;
            // Nowhere is left to report that stderr is closed.
            let _ = write!(io::stderr(), "{}", Style::of_stderr().dim(&harmless(piece)));
        }
    }

    /// The answer begins.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            let _ = writeln!(io::stderr(), "\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(prompt: &str, pieces: &[&str]) -> (String, String) {
        let mut thoughts = Thoughts::after(prompt, true);
        let mut all: Vec<Said> = pieces.iter().flat_map(|piece| thoughts.push(piece)).collect();
        all.extend(thoughts.end());
        let mut both = (String::new(), String::new());
        for said in all {
            match said {
                Said::Thought(text) => both.0.push_str(&text),
                Said::Answer(text) => both.1.push_str(&text),
            }
        }
        both
    }

    #[test]
    fn thoughts_are_told_from_answers_wherever_pieces_end() {
        let text = "<think>\nI see < 3.</thin\n</think>\n\nHello <think> you";
        let wanted = ("\nI see < 3.</thin\n".to_owned(), "Hello <think> you".to_owned());
        for size in 1..text.len() {
            let pieces: Vec<String> =
                text.chars().collect::<Vec<_>>().chunks(size).map(|chunk| chunk.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            assert_eq!(said("", &pieces), wanted, "pieces of {size}");
        }
        assert_eq!(
            said("assistant\n<think>\n", &["so", "</think>", "yes"]),
            ("so".to_owned(), "yes".to_owned())
        );
        assert_eq!(said("", &["plain", " text"]), (String::new(), "plain text".to_owned()));
        assert_eq!(said("", &["<thi"]), (String::new(), "<thi".to_owned()));
        assert_eq!(said("", &["<think>cut</th"]), ("cut</th".to_owned(), String::new()));
    }

    #[test]
    fn models_that_do_not_think_are_not_searched() {
        let mut thoughts = Thoughts::after("<think>", false);
        assert_eq!(thoughts.push("<think>x"), [Said::Answer("<think>x".to_owned())]);
    }
}

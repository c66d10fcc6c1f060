//! How an answer looks: as it is in pipes and files, for people at a terminal with line breaks between words
//! and a little Markdown.
//!
//! - `output`: standard output, flushed piece by piece
//! - `markdown`: bold, code, lists, headings and word wrap of a text that comes in pieces
//! - `line`: what a line of Markdown begins with
//! - `thoughts`: what a model thinks, told from what it answers

mod line;
mod markdown;
mod output;
mod thoughts;

pub(super) use output::{Output, View};
pub(super) use thoughts::{Said, Thinking, Thoughts};

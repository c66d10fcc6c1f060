//! A conversation on a terminal, with the habits of Ollama's.
//!
//! - `talk`: what was typed, done in turn; what answers
//! - `command`: what a typed line means
//! - `settings`: what `/set` sets
//! - `help`: what `/?` says
//! - `lines`: the line editor with its history

mod command;
mod help;
mod lines;
mod settings;
mod talk;

pub(super) use command::Part;
pub(super) use settings::ChatSettings;
pub(super) use talk::{Ended, Loaded, Speaker, first, talk};

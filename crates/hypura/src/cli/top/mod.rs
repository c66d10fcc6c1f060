//! `hypura top`: how a running server does, on a terminal.
//!
//! - `args`: its flags; once, as JSON, or until the person leaves
//! - `document`: what the server tells (`GET /api/hypura/status`, `/api/hypura/experts`)
//! - `feed`: asks it again and again, on a thread of its own, and keeps trying when nobody answers
//! - `app`: what is shown: the latest document, speeds of the last minutes, the chosen model
//! - `screen`: the terminal, which is given back whatever happens
//! - `view`: pictures of that, for any size
//!
//! The numbers are the server's; nothing here measures or guesses.

mod app;
mod args;
mod document;
mod feed;
mod screen;
mod view;

pub use args::{Args, execute};

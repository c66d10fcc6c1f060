//! Pictures of the state, for any size of the terminal.
//!
//! - `layout`: what goes where
//! - `header`, `machine`, `models`, `live`, `experts`: the parts
//! - `bars`: bars and sparklines of letters
//! - `words`: numbers for people
//! - `paint`: colours
//!
//! Every part draws lines into a rectangle and loses its last ones where that is too small.

mod bars;
mod experts;
mod header;
mod layout;
mod live;
mod machine;
mod models;
mod paint;
mod words;

#[cfg(test)]
mod tests;

pub(super) use layout::{draw, text};

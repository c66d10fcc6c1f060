//! The front ends of Hypura. The engine does the work; here are flags, words for people, and numbers for programs.
//!
//! - [`mod@bench`]: the same work in several ways, in turns
//! - [`cli`]: the command line
//! - [`plot`]: curves as SVG
//! - [`store`]: models by name
#![deny(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod plot;
pub mod store;

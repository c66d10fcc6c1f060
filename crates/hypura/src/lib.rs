//! The program. The engine and the server do the work; here are flags, words for people, and numbers for
//! programs.
//!
//! - [`mod@bench`]: the same work in several ways, in turns
//! - [`cli`]: the command line
//! - [`client`]: talks to a running server
//! - [`plot`]: curves as SVG
#![deny(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod client;
pub mod plot;

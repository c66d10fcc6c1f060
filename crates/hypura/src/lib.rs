//! The front ends of Hypura. The engine does the work; here are flags, words for people, and numbers for programs.
//!
//! - [`mod@bench`]: the same work in several ways, in turns
//! - [`cli`]: the command line
//! - [`client`]: talks to a running server
//! - [`plot`]: curves as SVG
//! - [`server`]: a drop-in Ollama
#![deny(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod client;
pub mod plot;
pub mod server;

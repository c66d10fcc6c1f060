//! A small blocking client of a running server, for the command line.
//!
//! - [`connection`](Client): where the server is, whether it is one of ours, requests with one answer
//! - `answer`: answers that come piece by piece
//!
//! Talks the native API, so it could talk to Ollama as well; [`Client::find`] makes sure that it is Hypura.

mod answer;
mod connection;
mod error;

pub use answer::Answer;
pub use connection::{Client, Listener};
pub use error::ClientError;

//! Models that are not on this machine.
//!
//! - `http`: files on web servers, read in ranges
//! - `header`: the headers of such files, one for each shard
//!
//! Blocks, and asks the network for nothing but headers and lists of files.

mod error;
mod header;
mod http;

pub use error::FetchError;
pub use header::{RemoteHeader, remote_header};
pub use http::HttpError;

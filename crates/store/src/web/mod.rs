//! HTTP as pulls and plans need it: requests that follow redirects without giving credentials away.
//!
//! - `client`: one request and its redirects
//! - `access`: credentials, and the token exchange of registries
//! - `address`: parts of URLs
//! - `error`: what servers do
//! - `range`: a file that is read front to back in ranges
//!
//! Blocks. Credentials go to the server that they are for and to no other, whatever redirects say.

mod access;
mod address;
mod client;
mod error;
mod range;

pub(crate) use access::Access;
pub(crate) use address::{host, is_loopback, is_url};
pub(crate) use client::{Answer, Client, Request, Timeouts};
pub use error::HttpError;
pub(crate) use range::{RangeReader, SHORT_HEADER, USUAL_HEADER, content_range};

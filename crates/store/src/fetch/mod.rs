//! Models that are not on this machine: what a name stands for elsewhere, as a list of files, and what their
//! headers say.
//!
//! - `name`: names that lead elsewhere
//! - `network`: endpoints and tokens, as the environment names them
//! - `model`: what a name stands for: files, and which of them are weights
//! - `hugging_face`, `listed`, `choice`: repositories, their files, and which of them are meant
//! - `registry`: Ollama's library and registries like it
//! - `plain`, `urls`: files at URLs
//! - `ask`: what a server says of a file
//! - `remote`: from a name to one of these
//! - `header`: the headers of such files, one for each shard
//! - `variants`: those of the other quantisations of a repository
//!
//! Blocks, and asks the network for nothing but headers and lists of files.

mod ask;
mod choice;
mod error;
mod header;
mod hugging_face;
mod listed;
mod model;
mod name;
mod network;
mod plain;
mod registry;
mod remote;
mod urls;
mod variants;

pub use crate::web::HttpError;
pub(crate) use ask::identity_of;
pub use error::FetchError;
pub use header::{RemoteHeader, remote_header};
pub use model::{FileKind, RemoteFile, RemoteModel, Variant};
pub(crate) use model::{Home, HubPlace, Identity};
pub use name::RemoteName;
pub use network::Network;
pub(crate) use registry::layers_of;
pub use remote::Remote;

//! Models arrive: files elsewhere become files here, whole and verified, or stay partial and are continued.
//!
//! - `run`: a pull from its name to its last line
//! - `settings`: how many connections, how patient
//! - `space`: whether the disk has room
//! - `files`: all files of a model, several at a time
//! - `file`: one file: whose turn it is, then its connections
//! - `landing`: where a file is while it arrives, and the lock that makes one download of several
//! - `journal`: which parts are there, kept so that neither a killed process nor a lost machine is believed
//! - `parts`: the parts of a file that arrives, shared by its threads
//! - `connection`: a connection that fetches parts
//! - `retry`: how long to wait before the next try
//! - `digest`: SHA-256 behind the writes, in order
//! - `flush`: what is written gets to the disk, in steps
//! - `finish`: names for what arrived: snapshots and manifests
//! - `partial`: downloads that are not whole: listed and removed
//!
//! Invariants: no name leads to bytes that were not verified; a part counts only when all of it is written,
//! and after a crash of the machine only when it was flushed; nobody writes to a file without its lock.

mod connection;
mod digest;
mod error;
mod file;
mod files;
mod finish;
mod flush;
mod journal;
mod landing;
mod partial;
mod parts;
mod retry;
mod run;
mod settings;
mod space;

pub use error::PullError;
pub use partial::Partial;
pub use run::{PullRequest, Pulls, Room};
pub use settings::PullSettings;

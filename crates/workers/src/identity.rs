//! Who speaks: a version of Hypura, built with a version of ggml, on a machine with a name.
//!
//! ggml's RPC sends numbers of operations and types, so both ends must be built from the same source.

use serde::{Deserialize, Serialize};

/// Version of the tunnel's frames ([`crate::pump`]).
const TUNNEL: u32 = 2;

/// A program on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of Hypura.
    pub version: String,
    /// What ggml it is built with: version of the crate, of ggml, of the RPC protocol, of the tunnel.
    pub build: String,
    /// Name of the machine.
    pub name: String,
}

impl Identity {
    /// This machine's name, with what the caller is.
    #[must_use]
    pub fn here(version: &str, build: &str) -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let build = format!("{build}, tunnel {TUNNEL}");
        Self { version: version.to_owned(), build, name }
    }

    /// Whether the two can work together.
    #[must_use]
    pub fn suits(&self, other: &Self) -> bool {
        (&self.version, &self.build) == (&other.version, &other.build)
    }

    /// For people.
    #[must_use]
    pub fn program(&self) -> String {
        format!("Hypura {} with ggml {}", self.version, self.build)
    }
}

//! Which limits hold for a runner.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a limit holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// All of it.
    Yes,
    /// What this system knows of it.
    Partly,
    /// The system has none of it.
    #[default]
    No,
}

impl fmt::Display for Hold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Yes => "yes",
            Self::Partly => "partly",
            Self::No => "no",
        })
    }
}

/// Which limits hold for a runner, as it reports them itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// It reads and writes its own files and the system's alone.
    pub files: Hold,
    /// It opens no connections to other machines.
    pub network: Hold,
    /// It starts no programs, traces nobody, mounts nothing.
    pub system_calls: Hold,
}

impl Confinement {
    /// Whether all of them hold as far as the program knows how.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        [self.files, self.network, self.system_calls].iter().all(|hold| *hold == Hold::Yes)
    }
}

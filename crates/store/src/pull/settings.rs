//! How models are pulled: numbers that only tests and measurements change.

use std::time::Duration;

use crate::web::Timeouts;

/// How models are pulled.
#[derive(Clone, Debug)]
pub struct PullSettings {
    /// Connections at a time, for all files of a model together.
    pub connections: usize,
    /// Bytes of a part: what is fetched again after a crash, for each connection.
    pub part_bytes: u64,
    /// Bytes that are asked for at once: several parts, so that servers are not asked for each.
    pub request_bytes: u64,
    /// Written bytes between two flushes. Connections wait when four times as much is not flushed.
    pub flush_bytes: u64,
    /// Tries without a part of progress before a server is given up.
    pub tries: u32,
    /// Wait after the first failure, doubled after each further one.
    pub first_wait: Duration,
    /// Longest wait, also when a server asks for more.
    pub longest_wait: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence of a server.
    pub silence: Duration,
    /// A connection that is slower than this for as long as [`Self::silence`] is replaced.
    pub least_bytes_per_s: u64,
    /// Between two reports of progress.
    pub report_every: Duration,
}

/// Connections to a server, as many as its users may have.
const CONNECTIONS: usize = 4;

impl Default for PullSettings {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            part_bytes: 8 << 20,
            request_bytes: 64 << 20,
            flush_bytes: 64 << 20,
            tries: 8,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            least_bytes_per_s: 1 << 10,
            report_every: Duration::from_millis(60),
        }
    }
}

impl PullSettings {
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts { connect: self.connect_timeout, silence: self.silence }
    }
}

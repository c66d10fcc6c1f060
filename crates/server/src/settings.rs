//! How the HTTP side behaves.

use std::time::Duration;

use super::origins::Origins;

/// Most bytes of bodies in memory at once.
const MOST_BODY_BYTES: usize = 1 << 30;
/// A body brings [`LEAST_BODY_BYTES`] within so long, or is given up.
const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// As much as the slowest line brings.
const LEAST_BODY_BYTES: usize = 16 << 10;

/// How the HTTP side behaves.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Which web pages may call.
    pub origins: Origins,
    /// The key that every request must bring, if any.
    pub api_key: Option<String>,
    /// Whether only programs of this machine can connect: then the `Host` header is looked at.
    pub loopback: bool,
    /// A stream without anything to say sends a heartbeat after so long.
    pub heartbeat: Duration,
    /// Headers go out after so long, even if it is not known yet whether the request is good.
    pub headers_after: Duration,
    /// Most bytes that the bodies of all requests together take in memory.
    pub most_body_bytes: usize,
    /// A body brings its end or `least_body_bytes` within so long, again and again, or is given up.
    pub body_patience: Duration,
    /// See `body_patience`.
    pub least_body_bytes: usize,
    /// Most connections at a time.
    pub most_connections: usize,
    /// A new connection that says nothing for so long is closed.
    pub first_byte_limit: Duration,
    /// A connection that asks for nothing more, or takes longer over the head of a request, is closed after
    /// so long.
    pub head_limit: Duration,
    /// How long running answers may take after a shutdown was requested.
    pub drain_limit: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            origins: Origins::default(),
            api_key: None,
            loopback: true,
            heartbeat: Duration::from_secs(15),
            headers_after: Duration::from_secs(10),
            most_body_bytes: MOST_BODY_BYTES,
            body_patience: BODY_PATIENCE,
            least_body_bytes: LEAST_BODY_BYTES,
            most_connections: usize::MAX,
            first_byte_limit: Duration::from_secs(30),
            head_limit: Duration::from_secs(300),
            drain_limit: Duration::from_secs(300),
        }
    }
}

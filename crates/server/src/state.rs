//! What every request can reach.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::bodies;
use super::metrics::Counters;
use super::models::{Catalog, ModelManager};
use super::origin::Origins;

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
    /// A body that brings nothing for so long is given up.
    pub body_standstill: Duration,
    /// A connection that asks for nothing more, or takes longer over the head of a request, is closed after so long.
    pub head_limit: Duration,
    /// When the server is told to stop, answers that run get so long to end.
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
            most_body_bytes: bodies::MOST_BYTES,
            body_standstill: bodies::STANDSTILL,
            head_limit: Duration::from_secs(300),
            drain_limit: Duration::from_secs(300),
        }
    }
}

/// The server.
pub struct Server {
    /// Which models there are.
    pub catalog: Arc<dyn Catalog>,
    /// Which are loaded.
    pub models: ModelManager,
    /// How the HTTP side behaves.
    pub http: HttpSettings,
    /// What was counted.
    pub counters: Counters,
    /// Bytes of bodies in memory.
    pub body_bytes: AtomicUsize,
    /// Blobs that may come in at once: each holds a thread.
    pub uploads: Semaphore,
    /// When it started.
    pub started: Instant,
}

/// Blobs that may come in at once.
const UPLOADS: usize = 8;

impl Server {
    /// A server of these models.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>, models: ModelManager, http: HttpSettings) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            models,
            http,
            counters: Counters::default(),
            body_bytes: AtomicUsize::new(0),
            uploads: Semaphore::new(UPLOADS),
            started: Instant::now(),
        })
    }
}

//! What every request can reach.

use std::sync::Arc;
use std::time::{Duration, Instant};

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
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            origins: Origins::default(),
            api_key: None,
            loopback: true,
            heartbeat: Duration::from_secs(15),
            headers_after: Duration::from_secs(10),
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
    /// When it started.
    pub started: Instant,
}

impl Server {
    /// A server of these models.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>, models: ModelManager, http: HttpSettings) -> Arc<Self> {
        Arc::new(Self { catalog, models, http, counters: Counters::default(), started: Instant::now() })
    }
}

//! What every request can reach.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tokio::sync::Semaphore;

use super::counters::Counters;
use super::models::{Catalog, ModelManager, RunningModel};
use super::recent::Recent;
use super::settings::HttpSettings;
use super::status::{Desk, Plans};

/// The server.
pub struct Server {
    /// Which models there are.
    pub catalog: Arc<dyn Catalog>,
    /// Which are loaded.
    pub models: ModelManager,
    /// How the HTTP side behaves.
    pub http: HttpSettings,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// Bytes of bodies in memory.
    pub body_bytes: AtomicUsize,
    /// Blobs that may come in at once: each holds a thread.
    pub uploads: Semaphore,
    /// Recent answers that later requests may refer to.
    pub recent: Recent,
    /// What whoever watches is told.
    pub status: Desk,
    /// Plans that were asked for lately.
    pub plans: Plans,
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
            counters: Arc::default(),
            body_bytes: AtomicUsize::new(0),
            uploads: Semaphore::new(UPLOADS),
            recent: Recent::default(),
            status: Desk::default(),
            plans: Plans::default(),
            started: Instant::now(),
        })
    }

    /// What is loaded, latest expiry first.
    pub async fn running(self: &Arc<Self>) -> Vec<RunningModel> {
        let server = Arc::clone(self);
        // Only a panic, which was logged, gives none.
        tokio::task::spawn_blocking(move || server.models.running()).await.unwrap_or_default()
    }
}

//! One document for all who ask at the same time: however many watch, each runner is asked a few times a
//! second at most.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Mutex;

use super::machine::Processors;

/// How long a document is good for. Those who ask twice a second get a new one each time.
const FRESH: Duration = Duration::from_millis(200);

/// The latest document.
#[derive(Default)]
pub struct Desk(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    latest: Option<(Instant, Bytes)>,
    processors: Processors,
}

impl Desk {
    /// The document, as of less than a quarter of a second ago. `make` may block for a moment.
    pub(super) async fn latest(&self, make: impl FnOnce(&mut Processors) -> Value + Send + 'static) -> Bytes {
        let mut kept = self.0.lock().await;
        if let Some((made, bytes)) = &kept.latest
            && made.elapsed() < FRESH
        {
            return bytes.clone();
        }
        let mut processors = std::mem::take(&mut kept.processors);
        let made = tokio::task::spawn_blocking(move || {
            let document = make(&mut processors);
            (document, processors)
        });
        // Only a panic, which was logged, gives none.
        let Ok((document, processors)) = made.await else { return Bytes::from_static(b"{}") };
        let bytes = Bytes::from(document.to_string());
        kept.processors = processors;
        kept.latest = Some((Instant::now(), bytes.clone()));
        bytes
    }
}

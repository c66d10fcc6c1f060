//! What a step and those who watch it tell each other, without waiting for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Shared by the executors of a model and whoever watches it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// Raised when nobody wants the answer any more.
    pub abort: Arc<AtomicBool>,
    /// Grows with every read that lands.
    pub landed: Arc<AtomicU64>,
}

//! Pictures in prompts: from bytes of a file to rows of the KV cache.
//!
//! - [`picture`]: decoding, within bounds
//! - [`projector`]: what a projector file takes, checked before anything is loaded
//! - [`prompt`]: a prompt whose tokens stand for pictures where they are negative
//! - `table`: what each negative token stands for, and where rows are
//!
//! The rest of the engine goes on counting tokens: a picture of n rows is n equal negative tokens, whose number no other
//! picture gets. So a prompt that begins as an earlier one did, with the same pictures, finds their rows in memory, and one
//! with another picture does not.

pub mod picture;
pub mod projector;
pub mod prompt;
pub(crate) mod table;

pub use projector::PlannedProjector;
pub use prompt::{MARKER_NAME, MediaFile, MediaPrompt, PromptMedia, SeeError, marker, marker_part, tagged};

use hypura_ggml::Projector;
use std::sync::Arc;

/// A loaded projector, and what its model has seen.
#[derive(Clone)]
pub(crate) struct MediaTools {
    pub projector: Projector,
    pub table: Arc<table::MediaTable>,
}

impl MediaTools {
    pub fn new(projector: Projector) -> Self {
        let mrope = projector.facts().mrope;
        Self { projector, table: Arc::new(table::MediaTable::new(mrope)) }
    }
}

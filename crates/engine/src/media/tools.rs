//! What a loaded model has for media.

use hypura_ggml::Projector;
use std::sync::Arc;

use super::{Modalities, PlannedProjector, table::MediaTable};

/// A loaded projector, and what its model has seen and heard.
#[derive(Clone)]
pub(crate) struct MediaTools {
    pub projector: Projector,
    pub modalities: Modalities,
    /// The samples a second that sounds get, and the seconds that one may have.
    pub sample_rate: u32,
    pub most_sound_seconds: u32,
    pub table: Arc<MediaTable>,
}

impl MediaTools {
    pub fn new(projector: Projector, planned: &PlannedProjector) -> Self {
        let facts = projector.facts();
        let sounds = planned.modalities.sounds && facts.sample_rate.is_some();
        Self {
            projector,
            modalities: Modalities { pictures: planned.modalities.pictures && facts.vision, sounds },
            sample_rate: facts.sample_rate.unwrap_or(0),
            most_sound_seconds: planned.most_sound_seconds,
            table: Arc::new(MediaTable::new(facts.mrope)),
        }
    }
}

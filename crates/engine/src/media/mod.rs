//! Pictures and sounds in prompts: from bytes of a file to rows of the KV cache.
//!
//! - [`picture`], [`sound`]: decoding, within bounds
//! - [`projector`]: what a projector file takes, checked before anything is loaded
//! - [`prompt`]: a prompt whose tokens stand for media where they are negative
//! - `table`: what each negative token stands for, and where rows are
//!
//! The rest of the engine keeps counting tokens: a picture (or a piece of a sound) of n rows is n equal
//! negative tokens, whose number nothing else gets. So a prompt that begins as an earlier one did, with the
//! same media, finds their rows in memory, and one with another medium does not.

pub mod picture;
pub mod projector;
pub mod prompt;
pub mod sound;
pub(crate) mod table;

pub use crate::request::MediaFile;
pub use projector::PlannedProjector;
pub use prompt::{MARKER_NAME, MediaPrompt, MediaPromptError, PromptMedia, marker, marker_part, tagged};

use hypura_ggml::Projector;
use std::sync::Arc;

/// What a medium is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Picture,
    /// A sound.
    Sound,
}

impl MediaKind {
    /// What a file is, by its first bytes. An unknown format counts as a picture, and decoding will reject
    /// it.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if sound::is_sound(bytes) { Self::Sound } else { Self::Picture }
    }

    /// What clients call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Picture => "image",
            Self::Sound => "audio",
        }
    }
}

/// Which media a model can be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Modalities {
    /// It sees pictures.
    pub pictures: bool,
    /// It hears sounds.
    pub sounds: bool,
}

impl Modalities {
    /// Whether it has the sense for these.
    #[must_use]
    pub const fn has(self, kind: MediaKind) -> bool {
        match kind {
            MediaKind::Picture => self.pictures,
            MediaKind::Sound => self.sounds,
        }
    }

    /// Whether it has any.
    #[must_use]
    pub const fn any(self) -> bool {
        self.pictures || self.sounds
    }
}

/// Looks whether a file begins like a picture or a sound that can be used.
///
/// # Errors
/// Why it does not, with the word for what it is.
pub fn probe(bytes: &[u8]) -> Result<MediaKind, String> {
    let kind = MediaKind::of(bytes);
    match kind {
        MediaKind::Picture => picture::probe(bytes).map_err(|error| error.to_string()),
        MediaKind::Sound => sound::probe(bytes).map_err(|error| error.to_string()),
    }
    .map(|()| kind)
}

/// A loaded projector, and what its model has seen and heard.
#[derive(Clone)]
pub(crate) struct MediaTools {
    pub projector: Projector,
    pub modalities: Modalities,
    /// The samples a second that sounds get, and the seconds that one may have.
    pub sample_rate: u32,
    pub most_sound_seconds: u32,
    pub table: Arc<table::MediaTable>,
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
            table: Arc::new(table::MediaTable::new(facts.mrope)),
        }
    }
}

//! What a medium is, and which of them a model can be shown.

use super::{picture, sound};

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

//! Why a sound cannot be used.

/// Larger files are not looked at: ten minutes of a CD are 101 MiB.
pub const MOST_BYTES: usize = 128 << 20;

/// Why a sound cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SoundError {
    /// None of the formats that are known.
    #[error("this is no audio that can be read: wav, mp3 or flac is wanted")]
    Format,
    /// Damaged, cut off, or of a kind that is not supported.
    #[error("the audio cannot be decoded: {0}")]
    Damaged(String),
    /// Longer than may be.
    #[error("the audio is longer than the {most} seconds that can be taken: cut it")]
    TooLong {
        /// Seconds.
        most: u32,
    },
    /// A file that is larger than any that is looked at.
    #[error("the audio file is larger than {} MiB", MOST_BYTES >> 20)]
    TooLarge,
    /// Without any sample.
    #[error("the audio is empty")]
    Empty,
}

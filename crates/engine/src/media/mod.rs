//! Pictures and sounds in prompts: from bytes of a file to rows of the KV cache.
//!
//! - `kind`: what a medium is, by its first bytes
//! - [`picture`], [`sound`]: decoding, within bounds
//! - [`projector`]: what a projector file takes, checked before anything is loaded
//! - [`prompt`]: a prompt whose tokens stand for media where they are negative
//! - `tools`: what a loaded model has for media
//! - `table`: what each negative token stands for, and where rows are
//!
//! The rest of the engine keeps counting tokens: a picture (or a piece of a sound) of n rows is n equal
//! negative tokens, whose number nothing else gets. So a prompt that begins as an earlier one did, with the
//! same media, finds their rows in memory, and one with another medium does not.

mod kind;
pub mod picture;
pub mod projector;
pub mod prompt;
pub mod sound;
pub(crate) mod table;
mod tools;

pub use crate::request::MediaFile;
pub use kind::{MediaKind, Modalities, probe};
pub use projector::PlannedProjector;
pub use prompt::{MARKER_NAME, MediaPrompt, MediaPromptError, PromptMedia, marker, marker_part, tagged};
pub(crate) use tools::MediaTools;

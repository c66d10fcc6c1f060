//! Pictures and sounds: a projector turns them into rows of embeddings that a model reads in place of tokens.
//!
//! Everything is llama.cpp's own `mtmd` library behind a C border of ours (`shim.cpp`), which lets no C++
//! exception through and turns ggml's abort into an error wherever nothing computes. Its choice of a device
//! is made for it: the CPU's backend, which is the decorated one where it was installed, without an executor:
//! a plain pass-through.
//!
//! - [`measure()`]: what a projector file would take, without its weights being read
//! - [`Projector`]: a loaded one: [`Projector::tokenize`] from any thread, [`Projector::encode`] one at a
//!   time
//! - [`Medium`]: a decoded picture or sound; [`MediaChunk`]: its place in a prompt

mod border;
mod chunk;
mod error;
mod ffi;
mod measure;
mod medium;
mod projector;
mod prompt;

pub use chunk::{MediaChunk, RowPlaces};
pub use error::MediaError;
pub use measure::{PIECE_SECONDS, ProjectorUse, measure};
pub use medium::Medium;
pub use projector::{Projector, ProjectorFacts};
pub use prompt::{PromptPart, PromptPiece};

//! From a job to its pieces: find the model, have it loaded, make the prompt, run it, tell the answer apart.
//!
//! - [`mod@chat`], [`mod@generate`], [`mod@embed`]: one kind of job each
//! - [`lookup`]: names and capabilities, checked before anything is loaded
//! - [`bounds`]: how much text may be read
//! - [`fit`], [`shorten`]: conversations and prompts that are longer than the context
//! - [`go_template`]: the simple forms of Ollama's templates
//! - [`run`]: what all jobs share once there is a prompt
//! - [`stream`]: the pieces on their way to a front end

mod bounds;
mod chat;
mod embed;
mod fit;
mod generate;
mod go_template;
mod lookup;
mod run;
mod shorten;
mod stream;

pub use bounds::check_text;
pub use chat::{chat, count_chat, render_chat};
pub use embed::embed;
pub use generate::{generate, render_generate};
pub use lookup::{Found, failure_of, find, own_options};
pub use run::{load, unload};
pub use stream::{Collected, PieceStream};

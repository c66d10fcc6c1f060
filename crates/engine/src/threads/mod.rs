//! How many threads compute each step: measured here, decided by [`hypura_core::threads`].
//!
//! - `control`: sets the threads of a context before each step, and learns from it
//! - `served`: the same for graphs that another machine asks for
//! - `meter`: what threads and cores did while steps were computed
//! - [`ThreadUse`]: what came of it, for people

mod control;
mod meter;
mod served;
mod thread_use;

pub(crate) use control::ThreadControl;
pub(crate) use served::ServedThreads;
pub use thread_use::ThreadUse;

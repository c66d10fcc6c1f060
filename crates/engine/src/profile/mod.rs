//! Measures this machine, once, and remembers it.
//!
//! - `measure`: disk, processor and memory in at most 15 seconds
//! - `facts`: what the system says without measuring
//! - `store`: the file in the cache directory, and when it is still valid
//!
//! Invariant: what cannot be measured is absent from the profile, with the reason where there is one.

mod facts;
mod measure;
mod store;

pub use measure::{ProfileOptions, measure};
pub use store::{DISTURBED_SHARE, Origin, Remembered, cache_folder, key_of, recall};

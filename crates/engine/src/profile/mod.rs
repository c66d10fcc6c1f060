//! Measures this machine, once, and remembers it.
//!
//! - `measure`: processor and memory, `disk`: the disk, both within `budget`
//! - `gpu`: the GPU that computes
//! - `facts`: what the system says without measuring
//! - `store`: the file in the cache directory, and when it is still valid
//!
//! Invariant: what cannot be measured is absent from the profile, with the reason where there is one.

mod budget;
mod disk;
pub(crate) mod facts;
mod gpu;
mod measure;
mod options;
mod store;

pub use budget::MOST;
pub use gpu::gpu_rates;
pub use measure::measure;
pub use options::ProfileOptions;
pub use store::{DISTURBED_SHARE, Need, Origin, Remembered, Wanted, cache_folder, known, recall};

//! Measures this machine, once, and remembers it.
//!
//! - `measure`: processor and memory, `disk`: the disk, both within `budget`
//! - `gpu`: the GPU that computes
//! - `facts`: what the system says without measuring
//! - `timing`: kernels, beside whatever else runs
//! - `audit`: what runs came to, in a file of its own
//! - `files`: the cache folder
//! - `store`: the files in the cache directory, and when they are still valid; what is known of workers
//!
//! Invariant: what cannot be measured is absent from the profile, with the reason where there is one.

mod audit;
mod budget;
mod disk;
pub(crate) mod facts;
mod files;
mod gpu;
mod measure;
mod options;
mod store;
mod timing;

pub use audit::add_record;
pub use budget::MOST;
pub use files::cache_folder;
pub use gpu::gpu_rates;
pub use measure::measure;
pub use options::ProfileOptions;
pub use store::{
    DISTURBED_SHARE, Need, Origin, Remembered, Wanted, keep_worker, known, known_workers, recall, unix_now_s,
};

//! Measures what this machine's storage delivers. Direct I/O only: where it cannot be had there is a reason
//! instead of a number, because a number from the page cache would be about memory.
//!
//! What cannot be excluded, and is said here rather than corrected for: caches inside the drive or under a
//! virtual machine. Read a file much larger than them, such as the model itself.

mod bandwidth;
mod budget;
mod config;

pub use bandwidth::{ProbeError, measure};
pub use config::{Pattern, ProbeCell, ProbeConfig, ProbeReport, Throughput};

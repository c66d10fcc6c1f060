//! Readers: the [`Reader`] trait, its requests and completions, and the choice between implementations.
//!
//! | file | job |
//! |---|---|
//! | `contract` | the [`Reader`] trait |
//! | `chunk` | one read at the device, and what follows from what it returned |
//! | `schedule` | which chunk goes to the device next, and when a request is complete (pure, shared by all) |
//! | `hub` | the schedule behind a lock, between the owner of a reader and its worker threads |
//! | `pread` | worker threads that call `pread` (Linux and macOS) |
//! | `uring` | io_uring, driven by the calls of its owner (Linux) |
//! | `uring_ring` | the ring itself: slots, entries, completions |
//! | `uring_files` | files that the ring knows by number |
//! | `sim` | seeded latencies, disorder and faults on a virtual clock |
//! | `scoped` | blocking reads into borrowed memory, unaligned ranges allowed |

mod chunk;
mod contract;
mod error;
mod hub;
mod open;
mod pread;
mod request;
mod schedule;
mod scoped;
mod sim;
#[cfg(target_os = "linux")]
mod uring;
#[cfg(target_os = "linux")]
mod uring_files;
#[cfg(target_os = "linux")]
mod uring_ring;

pub use contract::Reader;
pub use error::OpenReaderError;
pub use hub::ThreadedReader;
pub use open::{OpenedReader, ReaderKind, open_reader};
pub use pread::open_pread;
pub use request::{Completion, Priority, ReadRequest, ReaderConfig, ReaderStats};
pub use scoped::{ScopedRead, read_scoped};
pub use sim::{Eio, Injected, Latency, SimConfig, SimReader, Stall};
#[cfg(target_os = "linux")]
pub use uring::{UringReader, open_uring};

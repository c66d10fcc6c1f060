//! Direct I/O for Hypura: memory to read into, files to read from, readers that move the bytes, and
//! facts about the disks and the memory of this machine. It knows nothing of models.
//!
//! Invariants of this crate:
//! * A destination outlives every read into it. Readers hold an [`Arc<Arena>`](Arena) for each request until
//!   the kernel is done with it, also when the reader is dropped or forgotten.
//! * A request completes exactly once, and only when all its required bytes are in memory or none can follow.
//! * Errors name the file, the offset, the length and the cause; nothing is replaced by a default value.
//! * No fact is invented: what was not measured or cannot be known is `None` or carries its reason.

mod arena;
pub mod disk;
mod error;
mod file;
mod file_system;
pub mod memory;
mod platform;
mod population;
pub mod probe;
pub mod process;
mod random;
pub mod reader;
#[cfg(all(test, target_os = "linux"))]
mod required;
pub mod threads;

pub use arena::{Arena, HugePages};
pub use error::{ArenaError, OpenError, ReadError};
pub use file::{Alignment, OpenMode, SourceFile};
pub use population::{Phase, Population};
pub use reader::{
    Completion, Priority, ReadRequest, Reader, ReaderConfig, ReaderKind, ReaderStats, ScopedRead,
    open_reader, read_scoped,
};

/// The unit of direct I/O in this crate, in bytes. Every file system and device known to us accepts
/// reads whose offset, length and address are multiples of it.
pub const PAGE: usize = 4096;

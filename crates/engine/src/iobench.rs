//! Raw reads from the disk, for measuring it, and the settings of the disk that baselines hang on.

pub use hypura_storage::disk::{BlockDevice, FileSystem, ReadAhead, file_system_of};
pub use hypura_storage::probe::{
    Pattern, ProbeCell, ProbeConfig, ProbeError, ProbeReport, Throughput, measure,
};

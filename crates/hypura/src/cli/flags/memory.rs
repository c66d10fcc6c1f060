//! Flags about where weights are: in memory or on the disk, and how they come from there.

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use hypura_core::plan::Residency;
use hypura_engine::ReaderKind;
use hypura_engine::load::PolicyKind;

use super::size::CacheSizeArg;

/// Where weights are.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct MemoryFlags {
    /// Keep all weights in memory, stream them, or decide by the memory
    #[arg(long, value_enum, default_value_t, value_name = "HOW", help_heading = "Memory")]
    pub residency: ResidencyFlag,

    /// How much of the weights that can be streamed stays in memory: 6GiB, 33% [default: what the memory
    /// allows]
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub stream_cache: Option<CacheSizeArg>,

    /// Read embedding tables by the row, or keep them in memory, or decide by the memory
    #[arg(long, value_enum, default_value_t, value_name = "HOW", help_heading = "Memory")]
    pub tables: ResidencyFlag,

    /// Which expert loses its place when another one needs it
    #[arg(long, value_parser = policies(), default_value = PolicyKind::default().name(), value_name = "POLICY", help_heading = "Memory")]
    pub cache_policy: PolicyKind,

    /// How to read from the disk
    #[arg(long, value_enum, default_value_t, value_name = "READER", help_heading = "Memory")]
    pub reader: ReaderArg,
}

/// `--residency`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ResidencyFlag {
    /// In memory if it fits, otherwise streamed
    #[default]
    Auto,
    /// All in memory, in the layout of the file: the same bits as streaming
    Resident,
    /// Streamed, even if it would fit
    Stream,
}

/// `--reader`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReaderArg {
    /// The best that the system allows
    #[default]
    Auto,
    /// io_uring
    Uring,
    /// Threads that call pread
    Pread,
}

/// Reads an eviction policy by the name that core gives it.
fn policies() -> impl TypedValueParser<Value = PolicyKind> {
    let value = |kind: PolicyKind| PossibleValue::new(kind.name()).help(policy_about(kind));
    let unknown = "no such policy";
    PossibleValuesParser::new(PolicyKind::ALL.map(value))
        .try_map(move |name| PolicyKind::from_name(&name).ok_or(unknown))
}

/// A policy in a few words.
pub const fn policy_about(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::Lfru => "The one used least often of late",
        PolicyKind::Lru => "The one not used for longest",
        PolicyKind::S3Fifo => "Three queues",
    }
}

impl From<ResidencyFlag> for Residency {
    fn from(residency: ResidencyFlag) -> Self {
        match residency {
            ResidencyFlag::Auto => Self::Auto,
            ResidencyFlag::Resident => Self::Resident,
            ResidencyFlag::Stream => Self::Stream,
        }
    }
}

impl From<ReaderArg> for ReaderKind {
    fn from(reader: ReaderArg) -> Self {
        match reader {
            ReaderArg::Auto => Self::Auto,
            ReaderArg::Uring => Self::Uring,
            ReaderArg::Pread => Self::Pread,
        }
    }
}

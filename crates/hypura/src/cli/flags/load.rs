//! Flags about how a model is loaded and computed, the same for every command that loads one.

use clap::ValueEnum;
use hypura_engine::KvType;

use super::device::DeviceFlags;
use super::memory::MemoryFlags;
use super::speculate::SpeculateFlags;

/// How a model is loaded and computed.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct LoadFlags {
    #[command(flatten)]
    pub(super) memory: MemoryFlags,

    #[command(flatten)]
    pub(super) device: DeviceFlags,

    /// Another machine whose memory takes part; may be given several times (see `hypura workers`) [default:
    /// HYPURA_WORKERS]
    #[arg(long = "worker", value_name = "HOST[:PORT]", help_heading = "Device")]
    pub(super) workers: Vec<String>,

    #[command(flatten)]
    pub(super) speculate: SpeculateFlags,

    /// Tokens of the prompt that are computed at once [default: 512; where one model is loaded and streams,
    /// up to 4096 if that takes little memory]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=65_536), help_heading = "Model")]
    pub(super) ubatch: Option<u32>,

    /// Threads that compute, always so many [default: one for each processor, fewer while other programs use
    /// the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512), help_heading = "Model")]
    pub(super) threads: Option<u32>,

    /// Element type of the KV cache; q8_0 takes half the memory and is slightly lossy [default: auto]
    #[arg(long, value_enum, value_name = "TYPE", help_heading = "Model")]
    pub(super) kv: Option<KvArg>,

    /// Fill memory with poison before it is used again, for tests
    #[arg(long, hide = true)]
    pub(super) poison: bool,

    /// Have io_uring refused with this error number, for tests
    #[arg(long, hide = true, value_name = "ERRNO")]
    pub(super) simulate_uring_refusal: Option<i32>,
}

/// `--kv`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KvArg {
    /// f16, or q8_0 where the model does not fit otherwise
    #[default]
    Auto,
    /// 16-bit floats
    F16,
    /// 8-bit blocks
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<KvArg> for KvType {
    fn from(kv: KvArg) -> Self {
        match kv {
            KvArg::Auto | KvArg::F16 => Self::F16,
            KvArg::Q8_0 => Self::Q8_0,
        }
    }
}

//! The flags that say which model and how to load it, shared by every subcommand that loads one.

use anyhow::Context as _;
use clap::ValueEnum;
use hypura_core::plan::{Choice, SMALL_UBATCH};
use hypura_engine::load::{LoadSettings, ModelOptions, PolicyKind, TestHooks, Tuning, default_threads};
use hypura_engine::machine::{self, Memory};
use hypura_engine::{KvType, ReaderKind};
use std::path::{Path, PathBuf};

use super::{CacheSizeArg, MemorySize, UsageError};
use hypura_store::{ModelEntry, ModelName, Store, StoreError, demo_candidates, projector_beside};

/// The word that stands for the model that comes with the program.
const DEMO: &str = "demo";

/// Context when nobody asks for another, in tokens: long enough for a conversation, small beside the weights.
const DEFAULT_CONTEXT: u32 = 4096;

/// A model that was named.
#[derive(Clone, Debug)]
pub struct NamedModel {
    /// The file to open.
    pub path: PathBuf,
    /// What the store says of it, if it was named as a model of the store.
    pub entry: Option<ModelEntry>,
    /// Its projector for images and sounds, if it has one.
    pub projector: Option<PathBuf>,
}

/// Which model, and how to load it.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// A GGUF file (of several shards: any of them), the name of a model (see `hypura list`), or `demo`
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// Memory that may be used in all: 8GiB, 512MiB, 60% of the machine [default: what is free, less headroom]
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub memory: Option<MemorySize>,

    /// Keep all weights in memory, stream them, or decide by the memory
    #[arg(long, value_enum, default_value_t, value_name = "HOW", help_heading = "Memory")]
    pub residency: Residency,

    /// How much of the weights that can be streamed stays in memory: 6GiB, 33% [default: what the memory allows]
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub stream_cache: Option<CacheSizeArg>,

    /// Which expert loses its place when another one needs it
    #[arg(long, value_enum, default_value_t, value_name = "POLICY", help_heading = "Memory")]
    pub cache_policy: CachePolicy,

    /// How to read from the disk
    #[arg(long, value_enum, default_value_t, value_name = "READER", help_heading = "Memory")]
    pub reader: ReaderArg,

    /// Tokens that the model can remember, never more than it was trained for [default: 4096]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Model")]
    pub ctx: Option<u32>,

    /// Tokens of the prompt that are computed at once [default: 512; up to 4096 where weights stream, if that takes little memory]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=65_536), help_heading = "Model")]
    pub ubatch: Option<u32>,

    /// Threads that compute [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512), help_heading = "Model")]
    pub threads: Option<u32>,

    /// Projector with which the model sees images and hears sounds [default: the model's own, or the one beside its file]
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub mmproj: Option<PathBuf>,

    /// Element type of the KV cache; q8_0 takes half the memory, is slightly lossy, and is chosen only where f16 does not fit
    #[arg(long, value_enum, default_value_t, value_name = "TYPE", help_heading = "Model")]
    pub kv: KvArg,

    /// Fill memory with poison before it is used again, for tests
    #[arg(long, hide = true)]
    pub poison: bool,

    /// Have io_uring refused with this error number, for tests
    #[arg(long, hide = true, env = "HYPURA_SIMULATE_URING_REFUSAL", value_name = "ERRNO")]
    pub simulate_uring_refusal: Option<i32>,
}

/// `--residency`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Residency {
    /// In memory if it fits, otherwise streamed
    #[default]
    Auto,
    /// All in memory, in the layout of the file: the same bits as streaming
    Resident,
    /// Streamed, even if it would fit
    Stream,
}

/// `--cache-policy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CachePolicy {
    /// The one used least often of late
    #[default]
    Lfru,
    /// The one not used for longest
    Lru,
    /// Three queues
    S3fifo,
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

impl CachePolicy {
    /// Name in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lfru => "lfru",
            Self::Lru => "lru",
            Self::S3fifo => "s3fifo",
        }
    }

    const fn kind(self) -> PolicyKind {
        match self {
            Self::Lfru => PolicyKind::Lfru,
            Self::Lru => PolicyKind::Lru,
            Self::S3fifo => PolicyKind::S3Fifo,
        }
    }
}

impl ModelArgs {
    /// The model that is named: a file, `demo`, or a model of the store.
    ///
    /// # Errors
    /// When there is neither.
    pub fn find(&self) -> anyhow::Result<NamedModel> {
        let mut named = self.find_model()?;
        if self.mmproj.is_some() {
            named.projector.clone_from(&self.mmproj);
        }
        Ok(named)
    }

    fn find_model(&self) -> anyhow::Result<NamedModel> {
        if self.model == Path::new(DEMO) {
            return Ok(NamedModel { path: demo()?, entry: None, projector: None });
        }
        let as_file = || {
            let projector = projector_beside(&self.model);
            NamedModel { path: self.model.clone(), entry: None, projector }
        };
        let Some(name) = self.model.to_str().filter(|_| !self.model.exists()) else { return Ok(as_file()) };
        let is_path =
            name.ends_with(".gguf") || name.starts_with(['.', '/', '~']) || ModelName::parse(name).is_err();
        if is_path {
            // Opening it says what is wrong with it.
            return Ok(as_file());
        }
        let store = Store::of_environment();
        match store.resolve(name) {
            Ok(entry) => {
                let projector = entry.usable_projector().cloned();
                Ok(NamedModel { path: store.open_path(&entry)?, entry: Some(entry), projector })
            }
            Err(StoreError::NotFound(_)) => anyhow::bail!(
                "there is no model and no file called {name}: `hypura list` shows the models of this machine"
            ),
            Err(error) => Err(error.into()),
        }
    }

    /// The file to open.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(self.find()?.path)
    }

    /// Whether nothing is asked for that only a model of one's own can give: then one that a server has loaded will do.
    pub(super) fn suits_a_server(&self) -> bool {
        self.memory.is_none()
            && self.residency == Residency::default()
            && self.stream_cache.is_none()
            && self.cache_policy == CachePolicy::default()
            && self.reader == ReaderArg::default()
            && self.ubatch.is_none()
            && self.threads.is_none()
            && self.mmproj.is_none()
            && self.kv == KvArg::default()
            && !self.poison
            && self.simulate_uring_refusal.is_none()
    }

    /// How to load it. Looks at the memory of the machine when the budget depends on it.
    ///
    /// # Errors
    /// [`UsageError`] for flags that contradict each other; an error when the memory of the machine cannot be found out.
    pub fn settings(&self) -> anyhow::Result<LoadSettings> {
        if self.residency == Residency::Resident && self.stream_cache.is_some() {
            let why = "--stream-cache says how much is kept of what streams, but with --residency resident nothing does: \
                       leave one of them out";
            return Err(UsageError(why.to_owned()).into());
        }
        Ok(LoadSettings {
            model: self.model_options()?,
            tuning: self.tuning(),
            hooks: TestHooks {
                poison: self.poison,
                simulate_uring_refusal: self.simulate_uring_refusal,
                ..TestHooks::default()
            },
        })
    }

    fn model_options(&self) -> anyhow::Result<ModelOptions> {
        Ok(ModelOptions {
            budget_bytes: self.budget_bytes()?,
            choice: match self.residency {
                Residency::Auto => Choice::Auto,
                Residency::Resident => Choice::Resident,
                Residency::Stream => Choice::Stream,
            },
            cache: self.stream_cache.map(|size| size.0),
            context: self.ctx.unwrap_or(DEFAULT_CONTEXT),
            ubatch: self.ubatch.unwrap_or(SMALL_UBATCH),
            ubatch_may_grow: self.ubatch.is_none(),
            kv: match self.kv {
                KvArg::Auto | KvArg::F16 => KvType::F16,
                KvArg::Q8_0 => KvType::Q8_0,
            },
            kv_may_shrink: self.kv == KvArg::Auto,
            projector: self.mmproj.clone(),
            ..ModelOptions::default()
        })
    }

    fn tuning(&self) -> Tuning {
        Tuning {
            threads: self.threads.unwrap_or_else(default_threads),
            policy: self.cache_policy.kind(),
            reader: match self.reader {
                ReaderArg::Auto => ReaderKind::Auto,
                ReaderArg::Uring => ReaderKind::Uring,
                ReaderArg::Pread => ReaderKind::Pread,
            },
            ..Tuning::default()
        }
    }

    fn budget_bytes(&self) -> anyhow::Result<u64> {
        if let Some(MemorySize::Bytes(bytes)) = self.memory {
            return Ok(bytes);
        }
        let memory: Memory = machine::memory_available().context(
            "cannot find out how much memory this machine has: say how much may be used with --memory",
        )?;
        Ok(match self.memory {
            Some(size) => size.of(machine::machine_bytes(&memory)),
            None => machine::default_budget_bytes(memory.room_bytes()),
        })
    }
}

fn demo() -> anyhow::Result<PathBuf> {
    let candidates = demo_candidates();
    let found = candidates.iter().find(|path| path.is_file()).cloned();
    found.with_context(|| {
        let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!(
            "the demo model is not where this program looks for it ({}): name its file or folder in HYPURA_DEMO, or \
             name a GGUF file instead of `demo`",
            tried.join(", ")
        )
    })
}

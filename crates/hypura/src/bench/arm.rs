//! The arms of a benchmark: the ways of running a model that are compared.

use clap::ValueEnum;
use hypura_core::plan::Residency;
use hypura_engine::ReaderConfig;
use hypura_engine::baseline::{Experts, Weights};
use hypura_engine::load::{Drafting, LoadSettings, PolicyKind, Speculation};
use hypura_engine::stream::Prefetch;
use serde::{Deserialize, Serialize};

/// A way of running the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// What hypura does by itself under this memory: resident if it fits, streamed otherwise
    Auto,
    /// Streamed, even if it would fit
    Stream,
    /// All weights in memory in the layout of the file, under hypura's own device
    Resident,
    /// llama.cpp alone, over its own mapping of the file
    Mmap,
    /// llama.cpp alone, with all weights read into memory: no device, buffer, session or thread of hypura's
    Plain,
    /// llama.cpp alone, all on the GPU (--device) but the experts, which are read into memory and computed by
    /// the CPU
    CpuMoe,
    /// The same with llama.cpp's own cache of experts in the GPU's memory, as large as --moe-cache says
    MoeCache,
    /// The same over llama.cpp's own mapping of the file
    MmapMoeCache,
    /// Streamed as simply as can be: the least recently used expert goes, reads are waited for, nothing is
    /// guessed
    Naive,
    /// Streamed without statistics, to measure what those cost
    Blind,
    /// What hypura does by itself without drafting anything
    Undrafted,
}

impl Arm {
    /// Name in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Stream => "stream",
            Self::Resident => "resident",
            Self::Mmap => "mmap",
            Self::Plain => "plain",
            Self::CpuMoe => "cpu-moe",
            Self::MoeCache => "moe-cache",
            Self::MmapMoeCache => "mmap-moe-cache",
            Self::Naive => "naive",
            Self::Blind => "blind",
            Self::Undrafted => "undrafted",
        }
    }

    /// Whether it takes memory for the whole model, whatever the budget says.
    #[must_use]
    pub const fn needs_whole_model(self) -> bool {
        matches!(self, Self::Resident | Self::Plain | Self::CpuMoe | Self::MoeCache)
    }

    /// Whether `--memory` bounds it.
    #[must_use]
    pub const fn has_budget(self) -> bool {
        matches!(self, Self::Auto | Self::Stream | Self::Naive | Self::Blind | Self::Undrafted)
    }

    /// Where llama.cpp keeps the weights when it runs alone, and experts beside a GPU with a cache of so many
    /// bytes; `None` for what hypura runs.
    #[must_use]
    pub const fn baseline(self, cache_bytes: u64) -> Option<(Weights, Experts)> {
        match self {
            Self::Mmap => Some((Weights::Mapped, Experts::OnGpu)),
            Self::Plain => Some((Weights::Read, Experts::OnGpu)),
            Self::CpuMoe => Some((Weights::Read, Experts::OnCpu)),
            Self::MoeCache => Some((Weights::Read, Experts::Cached(cache_bytes))),
            Self::MmapMoeCache => Some((Weights::Mapped, Experts::Cached(cache_bytes))),
            _ => None,
        }
    }

    /// How the arm loads, given how the user asked to load.
    #[must_use]
    pub fn settings(self, asked: LoadSettings) -> LoadSettings {
        let drafts = matches!(self, Self::Auto | Self::Stream);
        let asked = if drafts { asked } else { Self::undrafted(asked) };
        match self {
            Self::Auto | Self::Undrafted => asked,
            Self::Stream => asked.with_choice(Residency::Stream),
            Self::Naive => Self::naive(asked),
            Self::Blind => asked.with_choice(Residency::Stream).with_statistics(false),
            Self::Resident => Self::unbounded(asked, Residency::Resident),
            Self::Plain | Self::Mmap | Self::CpuMoe | Self::MoeCache | Self::MmapMoeCache => {
                Self::unbounded(asked, Residency::Auto)
            }
        }
    }

    /// The proof of concept that came before the engine: all misses of a matrix are read together, 32
    /// requests at the disk, and waited for; then it computes. The kernels, slots and reads themselves are
    /// those of `stream`.
    fn naive(asked: LoadSettings) -> LoadSettings {
        let reader_config = ReaderConfig { depth: 32, ..asked.tuning.reader_config };
        asked
            .with_choice(Residency::Stream)
            .with_policy(PolicyKind::Lru)
            .with_prefetch(Prefetch::Off)
            .with_synchronous_reads(true)
            .with_reader_config(reader_config)
    }

    fn undrafted(asked: LoadSettings) -> LoadSettings {
        let speculation = Speculation { drafting: Drafting::Off, ..asked.tuning.speculation.clone() };
        asked.with_draft(None).with_speculation(speculation)
    }

    fn unbounded(asked: LoadSettings, residency: Residency) -> LoadSettings {
        asked.with_budget_bytes(u64::MAX).with_cache(None).with_choice(residency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypura_core::plan::CacheSize;

    fn asked() -> LoadSettings {
        LoadSettings::default()
            .with_budget_bytes(1000)
            .with_cache(Some(CacheSize::Percent(20.0)))
            .with_threads(3)
    }

    #[test]
    fn baselines_know_no_budget_and_no_cache() {
        for arm in [Arm::Resident, Arm::Plain, Arm::Mmap, Arm::CpuMoe, Arm::MoeCache, Arm::MmapMoeCache] {
            let settings = arm.settings(asked());
            assert_eq!(
                (settings.model.budget_bytes, settings.model.cache),
                (u64::MAX, None),
                "{}",
                arm.name()
            );
            assert_eq!(arm.baseline(0).is_some(), arm != Arm::Resident);
            assert_eq!(settings.tuning.threads, 3, "all else is as asked");
        }
        assert_eq!(Arm::Resident.settings(asked()).model.residency, Residency::Resident);
    }

    #[test]
    fn what_is_measured_keeps_them() {
        for arm in [Arm::Auto, Arm::Stream, Arm::Naive, Arm::Blind, Arm::Undrafted] {
            let settings = arm.settings(asked());
            assert_eq!(
                (settings.model.budget_bytes, settings.model.cache),
                (1000, Some(CacheSize::Percent(20.0)))
            );
        }
        assert_eq!(Arm::Stream.settings(asked()).model.residency, Residency::Stream);
        let naive = Arm::Naive.settings(asked());
        assert!(naive.hooks.synchronous_reads && naive.tuning.prefetch == Prefetch::Off);
        assert!(
            !Arm::Blind.settings(asked()).hooks.statistics && Arm::Stream.settings(asked()).hooks.statistics
        );
    }

    #[test]
    fn only_what_hypura_does_by_itself_drafts() {
        let speculation = Speculation { drafting: Drafting::Auto, ..Speculation::default() };
        let asked = asked().with_draft(Some("x.gguf".into())).with_speculation(speculation);
        for arm in Arm::value_variants() {
            let settings = arm.settings(asked.clone());
            let drafts = matches!(arm, Arm::Auto | Arm::Stream);
            assert_eq!(settings.model.draft.is_some(), drafts, "{}", arm.name());
            assert_eq!(settings.tuning.speculation.drafting == Drafting::Auto, drafts, "{}", arm.name());
        }
    }

    #[test]
    fn names_are_those_of_flags_and_json() {
        for arm in Arm::value_variants() {
            let flag = arm.to_possible_value().unwrap();
            assert_eq!(flag.get_name(), arm.name());
            assert_eq!(serde_json::to_value(arm).unwrap(), arm.name());
        }
    }
}

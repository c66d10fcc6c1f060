//! From flags to what the engine is told. The one place where flags meet defaults and the machine, for `run`,
//! `serve`, `plan`, `bench` and `trace` alike.

use anyhow::Context as _;
use hypura_core::plan::{SHORT_CONTEXT, SMALL_UBATCH};
use hypura_engine::load::{LoadSettings, ModelOptions, TestHooks, Tuning};
use hypura_engine::machine::{self, Memory};
use std::path::PathBuf;

use super::device::worker_addresses;
use super::environment::Env;
use super::load::{KvArg, LoadFlags};
use super::memory::ResidencyFlag;
use super::size::MemorySize;
use crate::cli::failure::UsageError;

/// What the flags of a command say about loading.
#[derive(Clone, Debug)]
pub struct Flags<'a> {
    /// `--memory`
    pub memory: Option<MemorySize>,
    /// `--ctx`
    pub context: Option<u32>,
    /// `--mmproj`
    pub projector: Option<PathBuf>,
    /// Those that all commands have.
    pub load: &'a LoadFlags,
}

/// How to load. Looks at the memory of the machine when the budget depends on it.
///
/// # Errors
/// [`UsageError`] for flags that contradict each other; an error when the memory of the machine cannot be
/// found out.
pub fn resolve(flags: &Flags<'_>, env: &Env) -> anyhow::Result<LoadSettings> {
    let Flags { memory, context, projector, load } = flags;
    let weights = &load.memory;
    if weights.residency == ResidencyFlag::Resident && weights.stream_cache.is_some() {
        let why = "--stream-cache says how much is kept of what streams, but with --residency resident nothing does: \
                   leave one of them out";
        return Err(UsageError(why.to_owned()).into());
    }
    let kv = load.kv.unwrap_or_default();
    let (speculation, draft) = load.speculate.resolve()?;
    Ok(LoadSettings {
        model: ModelOptions {
            budget_bytes: budget_bytes(*memory, env)?,
            device: load.device.resolve(env),
            workers: worker_addresses(&load.workers, env),
            residency: weights.residency.into(),
            cache: weights.stream_cache.map(|size| size.0),
            tables: weights.tables.into(),
            context: context.unwrap_or(SHORT_CONTEXT),
            context_may_grow: context.is_none(),
            ubatch: load.ubatch.unwrap_or(SMALL_UBATCH),
            ubatch_may_grow: load.ubatch.is_none(),
            kv: kv.into(),
            kv_may_shrink: kv == KvArg::Auto,
            projector: projector.clone(),
            draft,
            ..ModelOptions::default()
        },
        tuning: Tuning {
            threads: load.threads.unwrap_or(env.processors),
            threads_may_fall: load.threads.is_none(),
            policy: weights.cache_policy,
            reader: weights.reader.into(),
            speculation,
            ..Tuning::default()
        },
        hooks: TestHooks {
            poison: load.poison,
            simulate_uring_refusal: load.simulate_uring_refusal,
            ..TestHooks::default()
        },
    })
}

fn budget_bytes(memory: Option<MemorySize>, env: &Env) -> anyhow::Result<u64> {
    if let Some(MemorySize::Bytes(bytes)) = memory {
        return Ok(bytes);
    }
    let found = env.memory().context(
        "cannot find out how much memory this machine has: say how much may be used with --memory",
    )?;
    Ok(match memory {
        Some(size) => size.of(machine::machine_bytes(&found)),
        None => machine::default_budget_bytes(found.room_bytes()),
    })
}

/// What is to be said of a budget that this machine, or the control group, cannot keep.
pub(in crate::cli) fn beyond(budget_bytes: u64, memory: &Memory) -> Option<String> {
    let group =
        memory.limit.as_ref().map(|limit| limit.limit_bytes).filter(|bytes| *bytes < memory.total_bytes);
    let (whose, most_bytes) = match group {
        Some(bytes) => ("the control group of this process may use", bytes),
        None => ("this machine has", memory.total_bytes),
    };
    (budget_bytes > most_bytes).then(|| {
        format!(
            "--memory is {} MiB, and {whose} {} MiB: the system ends processes before the budget does",
            budget_bytes >> 20,
            most_bytes >> 20
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use hypura_core::plan::{CacheSize, ExpertHome, Residency};
    use hypura_engine::device::DeviceChoice;
    use hypura_engine::load::PolicyKind;
    use hypura_engine::machine::MemoryLimit;
    use hypura_engine::{KvType, ReaderKind};

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[arg(long)]
        memory: Option<MemorySize>,
        #[command(flatten)]
        load: LoadFlags,
    }

    fn resolved(flags: &[&str]) -> anyhow::Result<LoadSettings> {
        let command = Command::try_parse_from([&["x"], flags].concat()).unwrap();
        let flags = Flags { memory: command.memory, context: None, projector: None, load: &command.load };
        resolve(&flags, &Env::for_tests(&[]))
    }

    #[test]
    fn without_flags_the_machine_decides() {
        let LoadSettings { model, tuning, .. } = resolved(&[]).unwrap();
        assert_eq!(model.budget_bytes, 38 << 30, "40 GiB are free, 5% of them are headroom");
        assert_eq!((model.residency, model.cache, model.context), (Residency::Auto, None, 4096));
        assert!(model.context_may_grow, "as far as it costs little");
        assert_eq!((model.ubatch, model.ubatch_may_grow), (512, true));
        assert_eq!((model.kv, model.kv_may_shrink), (KvType::F16, true));
        assert_eq!((tuning.threads, tuning.policy), (2, PolicyKind::Lfru));
        assert!(tuning.threads_may_fall, "while others use the processors");
    }

    #[test]
    fn each_flag_reaches_the_engine() {
        let flags = [
            "--memory=50%",
            "--residency=stream",
            "--stream-cache=33%",
            "--cache-policy=s3fifo",
            "--reader=pread",
            "--ubatch=64",
            "--threads=7",
            "--kv=q8_0",
            "--device=Vulkan1",
            "--vram=6GiB",
            "--gpu-layers=9",
            "--cpu-moe",
            "--worker=a",
            "--worker=b:5",
            "--draft=x.gguf",
            "--draft-max=3",
            "--poison",
            "--simulate-uring-refusal=1",
        ];
        let LoadSettings { model, tuning, hooks } = resolved(&flags).unwrap();
        assert_eq!(model.budget_bytes, 32 << 30);
        assert_eq!((model.residency, model.cache), (Residency::Stream, Some(CacheSize::Percent(33.0))));
        assert_eq!((model.ubatch, model.ubatch_may_grow), (64, false));
        assert_eq!((model.kv, model.kv_may_shrink), (KvType::Q8_0, false));
        assert_eq!((tuning.threads, tuning.policy), (7, PolicyKind::S3Fifo));
        assert!(!tuning.threads_may_fall, "a number by name is kept");
        assert!(matches!(tuning.reader, ReaderKind::Pread));
        assert_eq!((model.draft, tuning.speculation.most), (Some("x.gguf".into()), 3));
        let device = model.device;
        assert_eq!((device.choice, device.vram_bytes), (DeviceChoice::named("Vulkan1"), Some(6 << 30)));
        assert_eq!(model.workers, ["a", "b:5"]);
        assert_eq!((device.layers, device.experts), (Some(9), ExpertHome::Host));
        assert_eq!((hooks.poison, hooks.simulate_uring_refusal), (true, Some(1)));
        assert!(!resolved(&["--kv=f16"]).unwrap().model.kv_may_shrink, "f16 by name is not given up");
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        let error = resolved(&["--residency=resident", "--stream-cache=1GiB"]).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("--stream-cache"));
    }

    #[test]
    fn a_budget_that_the_control_group_ends_first_is_warned_about() {
        let limit = |limit_bytes| MemoryLimit { limit_bytes, used_bytes: 0, group: "/".into() };
        let memory = |limit| Memory { total_bytes: 8 << 30, available_bytes: 8 << 30, limit };
        assert!(beyond(5 << 30, &memory(Some(limit(4 << 30)))).unwrap().contains("may use 4096 MiB"));
        assert!(beyond(9 << 30, &memory(Some(limit(u64::MAX)))).unwrap().contains("has 8192 MiB"));
        assert_eq!(beyond(8 << 30, &memory(None)), None);
        assert_eq!(beyond(4 << 30, &memory(Some(limit(4 << 30)))), None);
    }
}

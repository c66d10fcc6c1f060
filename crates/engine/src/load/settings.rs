//! How to load a model: what a user asks of it, how it is to run, and hooks for tests and benchmarks.
//!
//! The three are apart because they have different readers: [`ModelOptions`] decide the plan, [`Tuning`]
//! changes how fast it runs, [`TestHooks`] are nothing that a user of the program should want.

use hypura_core::cache::PolicyKind;
use hypura_core::plan::{
    CacheSize, ContextShape, KvType, MediaNeeds, PlanRequest, Pools, Residency, SHORT_CONTEXT, SMALL_UBATCH,
};
use hypura_core::profile::Profile;
use hypura_storage::{ReaderConfig, ReaderKind};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use super::devices::DeviceSettings;
use super::speculation::Speculation;
use crate::device::DeviceOptions;
use crate::stream::{Prefetch, RouteSettings};

/// What a user asks of a model: all that a plan depends on. [`Default`] is what there is without flags, but
/// for the budget, which the caller must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelOptions {
    /// Bytes that may be used of the host's memory.
    pub budget_bytes: u64,
    /// The GPU that computes beside the CPU.
    pub device: DeviceOptions,
    /// Other machines whose memory takes part, by address. They are attached to the process beforehand
    /// ([`crate::workers`]); a GPU of this machine is not used beside them.
    pub workers: Vec<String>,
    /// How fast this machine is, where that was measured: a worker that would make it slower is left out
    /// then.
    #[serde(default)]
    pub speeds: Option<Profile>,
    /// Resident, streaming, or what fits.
    pub residency: Residency,
    /// Size of the cache of streamed weights.
    pub cache: Option<CacheSize>,
    /// Whether tables stream by the row ([`PlanRequest::tables`]).
    #[serde(default)]
    pub tables: Residency,
    /// Tokens of context of each sequence, as far as the model can have them.
    pub context: u32,
    /// Whether the context may be longer where the memory for it is little: nobody asked for this one.
    pub context_may_grow: bool,
    /// Tokens of context down to which it is halved where the one that is asked for does not fit.
    pub least_context: Option<u32>,
    /// Most tokens in one graph.
    pub ubatch: u32,
    /// Whether it may be more where weights stream and the memory for it is little: each ubatch of a prompt
    /// reads all that is not in memory.
    pub ubatch_may_grow: bool,
    /// Sequences that run at once, each with its own context.
    pub sequences: u32,
    /// Further sequences that only remember: conversations that may come back, as far as the memory of the
    /// others has room.
    pub idle_sequences: u32,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// Whether it may be q8_0 in place of f16 where nothing else makes the plan work.
    pub kv_may_shrink: bool,
    /// The projector for images and sounds, if there is one.
    pub projector: Option<PathBuf>,
    /// The model that drafts for this one, if there is one. It stays in memory.
    pub draft: Option<PathBuf>,
    /// Whether the model is loaded without it where the two do not fit.
    pub draft_is_optional: bool,
    /// Devices besides the CPU. They are objects of one process and do not travel.
    #[serde(skip)]
    pub devices: DeviceSettings,
}

/// How a planned model runs. Nothing here changes what is where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tuning {
    /// Threads that compute.
    pub threads: u32,
    /// Whether it may be fewer while other programs use the cores: nobody asked for this number. The last
    /// bits of attention over 512 tokens or more then depend on who else computes.
    pub threads_may_fall: bool,
    /// Eviction policy of expert slots.
    pub policy: PolicyKind,
    /// Which reader.
    pub reader: ReaderKind,
    /// How the reader works.
    pub reader_config: ReaderConfig,
    /// How to guess the next layers' experts.
    pub prefetch: Prefetch,
    /// Which tokens are drafted, and how many.
    pub speculation: Speculation,
    /// Observe or force routing. Does not travel to another process.
    #[serde(skip)]
    pub routes: RouteSettings,
}

/// Hooks for tests and benchmarks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestHooks {
    /// Another reader for streaming than for loading, for tests of faults.
    pub stream_reader: Option<ReaderKind>,
    /// Have the system back the slots with memory before anything else, not behind the scenes: what loading
    /// costs then has no part in the prompt.
    pub populate_first: bool,
    /// Fill memory with a poison pattern before it is reused: stale bytes become visible.
    pub poison: bool,
    /// Only CPU kernels that compute each row by itself: one row and many of a sequence have the same bits.
    pub reference_kernels: bool,
    /// Wait for all reads of a layer's part before anything is computed, part by part: no overlap. What a
    /// simple program does; the baseline of benchmarks.
    pub synchronous_reads: bool,
    /// Take times and publish counters. Off only to measure what that costs.
    pub statistics: bool,
    /// Makes io_uring fail with this error number when it is opened, to test the way around it.
    pub simulate_uring_refusal: Option<i32>,
}

/// How to load: plain data, which can be sent to another process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadSettings {
    /// What is asked of the model.
    pub model: ModelOptions,
    /// How it runs.
    pub tuning: Tuning,
    /// For tests and benchmarks.
    pub hooks: TestHooks,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            budget_bytes: u64::MAX,
            device: DeviceOptions::default(),
            workers: Vec::new(),
            speeds: None,
            residency: Residency::Auto,
            cache: None,
            tables: Residency::Auto,
            context: SHORT_CONTEXT,
            context_may_grow: false,
            least_context: None,
            ubatch: SMALL_UBATCH,
            ubatch_may_grow: false,
            sequences: 1,
            idle_sequences: 0,
            kv: KvType::F16,
            kv_may_shrink: true,
            projector: None,
            draft: None,
            draft_is_optional: false,
            devices: DeviceSettings::default(),
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            threads: default_threads(),
            threads_may_fall: false,
            policy: PolicyKind::default(),
            reader: ReaderKind::Auto,
            reader_config: ReaderConfig::default(),
            prefetch: Prefetch::default(),
            speculation: Speculation::default(),
            routes: RouteSettings::default(),
        }
    }
}

impl Default for TestHooks {
    fn default() -> Self {
        Self {
            stream_reader: None,
            populate_first: false,
            poison: false,
            reference_kernels: false,
            synchronous_reads: false,
            statistics: true,
            simulate_uring_refusal: None,
        }
    }
}

impl ModelOptions {
    /// What is asked of a plan on the host alone; `media` is what the projector needs.
    #[must_use]
    pub fn plan_request(&self, media: MediaNeeds) -> PlanRequest {
        PlanRequest {
            pools: Pools::host(self.budget_bytes),
            residency: self.residency,
            cache: self.cache,
            tables: self.tables,
            device_layers: self.device.layers,
            experts: self.device.experts,
            context: ContextShape {
                context_tokens: self.context,
                ubatch_tokens: self.ubatch,
                sequences: self.sequences,
                idle_sequences: self.idle_sequences,
                kv: self.kv,
            },
            context_may_grow: self.context_may_grow,
            least_context_tokens: self.least_context,
            ubatch_may_grow: self.ubatch_may_grow,
            kv_may_shrink: self.kv_may_shrink,
            media,
            banks: self.devices.bank_rules(),
            speeds: None,
        }
    }
}

/// A method `with_…` for each field: the settings with that field changed.
macro_rules! with {
    ($($part:ident: $($name:ident $field:ident $kind:ty),+;)+) => {
        impl LoadSettings {
            $($(
                #[doc = concat!("With another [`", stringify!($field), "`](Self::", stringify!($part), ").")]
                #[must_use]
                pub fn $name(mut self, $field: $kind) -> Self {
                    self.$part.$field = $field;
                    self
                }
            )+)+
        }
    };
}

with! {
    model:
        with_budget_bytes budget_bytes u64,
        with_device device DeviceOptions,
        with_workers workers Vec<String>,
        with_speeds speeds Option<Profile>,
        with_choice residency Residency,
        with_cache cache Option<CacheSize>,
        with_tables tables Residency,
        with_context context u32,
        with_context_may_grow context_may_grow bool,
        with_least_context least_context Option<u32>,
        with_ubatch ubatch u32,
        with_ubatch_may_grow ubatch_may_grow bool,
        with_sequences sequences u32,
        with_idle_sequences idle_sequences u32,
        with_kv kv KvType,
        with_kv_may_shrink kv_may_shrink bool,
        with_projector projector Option<PathBuf>,
        with_draft draft Option<PathBuf>,
        with_draft_is_optional draft_is_optional bool,
        with_devices devices DeviceSettings;
    tuning:
        with_threads threads u32,
        with_threads_may_fall threads_may_fall bool,
        with_policy policy PolicyKind,
        with_reader reader ReaderKind,
        with_reader_config reader_config ReaderConfig,
        with_prefetch prefetch Prefetch,
        with_speculation speculation Speculation,
        with_routes routes RouteSettings;
    hooks:
        with_stream_reader stream_reader Option<ReaderKind>,
        with_populate_first populate_first bool,
        with_poison poison bool,
        with_reference_kernels reference_kernels bool,
        with_synchronous_reads synchronous_reads bool,
        with_statistics statistics bool,
        with_simulate_uring_refusal simulate_uring_refusal Option<i32>;
}

impl LoadSettings {
    /// The draft model, if it is to draft.
    #[must_use]
    pub fn draft(&self) -> Option<&PathBuf> {
        self.model.draft.as_ref().filter(|_| self.tuning.speculation.uses_model())
    }

    /// How readers work, refusals that tests ask for included.
    pub(super) fn reader_config(&self) -> ReaderConfig {
        let simulate_uring_refusal =
            self.hooks.simulate_uring_refusal.or(self.tuning.reader_config.simulate_uring_refusal);
        ReaderConfig { simulate_uring_refusal, ..self.tuning.reader_config }
    }
}

/// One computing thread per core that this process may use.
#[must_use]
pub fn default_threads() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

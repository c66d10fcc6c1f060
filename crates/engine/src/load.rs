//! From a plan to a model that is ready to decode.
//!
//! Order matters: headers, then what llama.cpp will need (measured without allocating), then the plan, and only when the
//! plan works is anything large allocated or read. Experts are never read at load.

pub use hypura_core::cache::PolicyKind;
use hypura_core::gguf::GgmlType;
use hypura_core::plan::{self, CacheSize, Choice, ContextRequest, ExpertLayout, Fixed, Mode, Plan, Request};
use hypura_ggml::{
    Context, ContextOptions, KvType, LoadMode, LoadOptions, MediaError, MemoryUse, Model, Projector,
};
use hypura_storage::{Arena, Reader, ReaderConfig, ReaderKind, open_reader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::assemble::{Assembled, assemble};
use crate::error::LoadError;
use crate::fill::fill;
use crate::media::projector::ProjectorError;
use crate::media::{MediaTools, PlannedProjector};
use crate::source::ModelSource;
use crate::stream::routes::check_fit;
use crate::stream::{Prefetch, RouteSettings, SharedStats};

/// How to load. [`Default`] is what a user gets without flags, but for the budget, which the caller must know.
#[derive(Clone, Debug)]
pub struct LoadSettings {
    /// Bytes that may be used in all.
    pub budget_bytes: u64,
    /// Resident, streaming, or what fits.
    pub choice: Choice,
    /// Size of the cache of streamed weights.
    pub cache: Option<CacheSize>,
    /// Eviction policy of expert slots.
    pub policy: PolicyKind,
    /// Which reader.
    pub reader: ReaderKind,
    /// Another reader for streaming than for loading, for tests of faults.
    pub stream_reader: Option<ReaderKind>,
    /// How the reader works.
    pub reader_config: ReaderConfig,
    /// Tokens of context of each sequence.
    pub context: u32,
    /// Most tokens in one graph.
    pub ubatch: u32,
    /// Whether it may be more where weights stream and the memory for it is little: each ubatch of a prompt reads all that is
    /// not in memory.
    pub ubatch_may_grow: bool,
    /// Sequences that run at once, each with its own context.
    pub sequences: u32,
    /// Further sequences that only remember: conversations that may come back, as far as the memory of the others has room.
    pub idle_sequences: u32,
    /// Threads that compute.
    pub threads: u32,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// Whether it may be q8_0 in place of f16 where nothing else makes the plan work.
    pub kv_may_shrink: bool,
    /// How to guess the next layers' experts.
    pub prefetch: Prefetch,
    /// Observe or force routing.
    pub routes: RouteSettings,
    /// Have the system back the slots with memory before anything else, not behind the scenes: what loading costs then has
    /// no part in the prompt. For benchmarks.
    pub populate_first: bool,
    /// Fill memory with a poison pattern before it is reused: stale bytes become visible. For tests.
    pub poison: bool,
    /// Wait for all reads of a layer's part before anything is computed, part by part: no overlap. What a simple
    /// program does; the baseline of benchmarks.
    pub synchronous_reads: bool,
    /// Take times and publish counters. Off only to measure what that costs.
    pub statistics: bool,
    /// The projector for images and sounds, if there is one.
    pub projector: Option<PathBuf>,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self {
            budget_bytes: u64::MAX,
            choice: Choice::Auto,
            cache: None,
            policy: PolicyKind::default(),
            reader: ReaderKind::Auto,
            stream_reader: None,
            reader_config: ReaderConfig::default(),
            context: 4096,
            ubatch: plan::SMALL_UBATCH,
            ubatch_may_grow: false,
            sequences: 1,
            idle_sequences: 0,
            threads: default_threads(),
            kv: KvType::F16,
            kv_may_shrink: true,
            prefetch: Prefetch::default(),
            routes: RouteSettings::default(),
            populate_first: false,
            poison: false,
            synchronous_reads: false,
            statistics: true,
            projector: None,
        }
    }
}

impl LoadSettings {
    /// The context, as estimates want it.
    #[must_use]
    pub fn context_request(&self) -> ContextRequest {
        ContextRequest {
            context_tokens: self.context,
            ubatch_tokens: self.ubatch,
            sequences: self.sequences,
            media_bytes: 0,
            kv: match self.kv {
                KvType::F16 => GgmlType::F16,
                KvType::Q8_0 => GgmlType::Q8_0,
            },
        }
    }

    /// What to plan with, given what llama.cpp needs.
    fn request(&self, fixed: Fixed) -> Request {
        Request { budget_bytes: self.budget_bytes, fixed, choice: self.choice, cache: self.cache }
    }
}

/// Most sequences of a context (llama.cpp's LLAMA_MAX_SEQ).
const MOST_SEQUENCES: u32 = 256;

/// One computing thread per core that this process may use.
#[must_use]
pub fn default_threads() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

/// What is known before anything is loaded.
#[derive(Debug)]
pub struct Planned {
    /// The files.
    pub source: ModelSource,
    /// Where experts go.
    pub layout: ExpertLayout,
    /// Where everything goes.
    pub plan: Plan,
    /// How it was asked for, or what became of it.
    pub settings: LoadSettings,
    /// What the plan decided that the user may want to know.
    pub notes: Vec<String>,
    /// The projector for images and sounds.
    pub projector: Option<PlannedProjector>,
}

/// A model that is ready to decode.
pub struct LoadedModel {
    /// llama.cpp's model.
    pub model: Model,
    /// Its context.
    pub context: Context,
    /// What it was loaded from, and how.
    pub planned: Planned,
    /// Counters of streaming.
    pub stats: Arc<SharedStats>,
    /// Raise to stop the decode in progress.
    pub abort: Arc<AtomicBool>,
    /// How long loading took.
    pub load_time: Duration,
    /// What llama.cpp allocated.
    pub memory: MemoryUse,
    /// Name of the reader; `None` when nothing streams.
    pub reader: Option<&'static str>,
    /// What the user may want to know (a fallback that was taken).
    pub notes: Vec<String>,
    /// What makes rows of media.
    pub(crate) media: Option<MediaTools>,
}

/// Reads headers, measures llama.cpp's needs, and plans. Allocates nothing of size.
///
/// # Errors
/// [`LoadError`].
pub fn prepare(source: ModelSource, mut settings: LoadSettings) -> Result<Planned, LoadError> {
    if source.shape.context_train > 0 {
        let most = u32::try_from(source.shape.context_train).unwrap_or(u32::MAX);
        settings.context = settings.context.min(most);
    }
    if let Some(trace) = &settings.routes.forced {
        check_fit(trace, &source.shape)?;
    }
    settings.context = settings.context.max(1);
    settings.ubatch = settings.ubatch.clamp(1, settings.context);
    if !source.is_causal() {
        // It looks both ways: a text has to go through in one graph.
        settings.ubatch = settings.context;
    }
    let projector = settings.projector.as_ref().map(|path| PlannedProjector::of(path, settings.sequences));
    let projector = projector.transpose()?;
    if let Some(projector) = projector.as_ref().filter(|projector| projector.non_causal) {
        // The rows of a picture see each other: they have to go through in one graph.
        settings.ubatch = settings.ubatch.max(projector.most_rows).min(settings.context);
    }
    let media_bytes = projector.as_ref().map_or(0, |projector| projector.bytes);
    let layout = ExpertLayout::new(&source.shape);
    if settings.ubatch_may_grow && source.is_causal() {
        let context = ContextRequest { media_bytes, ..settings.context_request() };
        let request = |fixed| settings.request(fixed);
        settings.ubatch = plan::choose_ubatch(&source.shape, &layout, &context, request);
    }
    let mut notes = Vec::new();
    let (plan, idle_sequences) = match plan_as_asked(&source, &layout, &settings, media_bytes) {
        Err(LoadError::Plan(too_little)) if settings.kv == KvType::F16 && settings.kv_may_shrink => {
            let smaller = LoadSettings { kv: KvType::Q8_0, ..settings.clone() };
            let planned = match plan_as_asked(&source, &layout, &smaller, media_bytes) {
                Ok(planned) => planned,
                // The least that works is what q8_0 needs; a model that cannot have it needs what f16 does.
                Err(LoadError::Plan(still_too_little)) => return Err(still_too_little.into()),
                Err(_) => return Err(too_little.into()),
            };
            notes.push(too_little.shrunk_kv_note());
            settings = smaller;
            planned
        }
        planned => planned?,
    };
    settings.idle_sequences = idle_sequences;
    Ok(Planned { source, layout, plan, settings, notes, projector })
}

/// A plan, and how many sequences may only remember: as many as were asked for where they take nothing (the cells of a KV cache
/// are one pool), fewer where each has memory of its own (recurrent state), none where the plan works only without them.
fn plan_as_asked(
    source: &ModelSource,
    layout: &ExpertLayout,
    settings: &LoadSettings,
    media_bytes: u64,
) -> Result<(Plan, u32), LoadError> {
    let model = measured_model(source)?;
    let fixed = |idle_sequences| {
        let settings = LoadSettings { idle_sequences, ..settings.clone() };
        measure(&model, source, &settings).map(|fixed| Fixed { media_bytes, ..fixed })
    };
    let plan = |fixed| plan::plan(&source.shape, layout, &settings.request(fixed));
    let bare = fixed(0)?;
    let idle = match settings.idle_sequences {
        0 => 0,
        wanted => {
            let full = fixed(wanted)?;
            let extra =
                (full.kv_bytes + full.compute_bytes).saturating_sub(bare.kv_bytes + bare.compute_bytes);
            let most = source.file_bytes() / REMEMBERING_SHARE;
            let affordable = u64::from(wanted).saturating_mul(most) / extra.max(1);
            u32::try_from(affordable).unwrap_or(u32::MAX).min(wanted)
        }
    };
    if idle > 0
        && let Ok(planned) = plan(fixed(idle)?)
    {
        return Ok((planned, idle));
    }
    Ok((plan(bare)?, 0))
}

/// Sequences that only remember may take one part in so many of what the files take.
const REMEMBERING_SHARE: u64 = 50;

/// What a context of so many tokens for each sequence would take of a model that was planned.
///
/// # Errors
/// llama.cpp's reason.
pub(crate) fn measure_context(planned: &Planned, context: u32) -> Result<Fixed, LoadError> {
    let settings = LoadSettings { context, ..planned.settings.clone() };
    measure(&measured_model(&planned.source)?, &planned.source, &settings)
}

/// A model without memory: its contexts only tell what they would take.
fn measured_model(source: &ModelSource) -> Result<Model, LoadError> {
    let options = LoadOptions { path: source.path.clone(), mode: LoadMode::Measure, gpu_layers: 0 };
    Model::load(&options)?.fill(|_| Ok::<(), LoadError>(()))
}

/// Has llama.cpp build a context without memory, and asks what it would take.
fn measure(model: &Model, source: &ModelSource, settings: &LoadSettings) -> Result<Fixed, LoadError> {
    let context = Context::new(model, &context_options(settings, source), None, Arc::default())?;
    let used = context.memory_use();
    Ok(Fixed {
        kv_bytes: used.context_bytes,
        compute_bytes: used.compute_bytes,
        process_bytes: plan::process_bytes(&source.shape, u64::from(settings.ubatch)),
        media_bytes: 0,
    })
}

fn context_options(settings: &LoadSettings, source: &ModelSource) -> ContextOptions {
    // A model for embeddings has all tokens of a text for outputs.
    let embeds = !source.is_causal() || source.pooling_type().is_some();
    ContextOptions {
        outputs: if embeds { 0 } else { plan::OUTPUTS },
        context: settings.context.saturating_mul(settings.sequences.max(1)),
        batch: settings.ubatch,
        ubatch: settings.ubatch,
        sequences: settings.sequences.max(1).saturating_add(settings.idle_sequences).min(MOST_SEQUENCES),
        threads: settings.threads,
        kv: settings.kv,
        // Ours to do where few tokens have outputs (`session::embed`).
        pooling: embeds.then(|| source.pooling()),
        flash_attention: true,
        alone: false,
    }
}

/// Loads what was planned. `progress` gets (bytes read, bytes to read) of the resident part.
///
/// # Errors
/// [`LoadError`]; nothing stays behind.
pub fn load(planned: Planned, progress: &mut dyn FnMut(u64, u64)) -> Result<LoadedModel, LoadError> {
    let mut watch = |done, total| {
        progress(done, total);
        true
    };
    load_watched(planned, &mut watch)
}

/// The same; `watch` stops the load by answering false.
///
/// # Errors
/// [`LoadError::Stopped`] then; nothing stays behind.
pub fn load_watched(
    planned: Planned,
    watch: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<LoadedModel, LoadError> {
    let start = Instant::now();
    let settings = &planned.settings;
    let stats = Arc::<SharedStats>::default();
    let abort = Arc::<AtomicBool>::default();
    let mut notes = planned.notes.clone();
    let mode = load_mode(&planned);
    let decorated = matches!(mode, LoadMode::Decorated { .. });
    let options = LoadOptions { path: planned.source.path.clone(), mode, gpu_layers: 0 };
    let pending = if decorated {
        Model::load(&options)?
    } else {
        // llama.cpp reads the weights itself, and tells how far it is.
        let total = planned.plan.resident_bytes;
        Model::load_watched(&options, &mut |share| watch((total as f64 * f64::from(share)) as u64, total))?
    };
    let mut reader_name = None;
    let mut open = |kind: &ReaderKind| -> Result<Box<dyn Reader>, LoadError> {
        let opened = open_reader(kind, &settings.reader_config)?;
        reader_name = Some(opened.reader.name());
        if let Some(note) = opened.note
            && !notes.contains(&note)
        {
            notes.push(note);
        }
        Ok(opened.reader)
    };
    let Assembled { executor, slots } = assemble(&planned, &stats, &abort, &mut open)?;
    let model = if decorated {
        let mut reader = open(&settings.reader)?;
        let total = pending.resident_bytes();
        pending.fill(|tensors| fill(&planned.source, tensors, reader.as_mut(), total, watch))?
    } else {
        pending.fill(|_| Ok::<(), LoadError>(()))?
    };
    let media = load_projector(&planned, &model, watch)?;
    let context =
        Context::new(&model, &context_options(settings, &planned.source), executor, Arc::clone(&abort))?;
    let memory = context.memory_use();
    // Only now, so that loading does not compete for pages.
    slots.filter(|_| !settings.populate_first).iter().for_each(Arena::populate_behind);
    Ok(LoadedModel {
        model,
        context,
        stats,
        abort,
        load_time: start.elapsed(),
        memory,
        reader: reader_name,
        notes,
        media,
        planned,
    })
}

/// The projector of a plan. `watch` is told that the load gets on, and may stop it.
fn load_projector(
    planned: &Planned,
    model: &Model,
    watch: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Option<MediaTools>, LoadError> {
    let Some(projector) = &planned.projector else { return Ok(None) };
    let path = &projector.path;
    let total = planned.plan.resident_bytes;
    let loaded = Projector::load(path, model, planned.settings.threads, &mut |_| watch(total, total));
    match loaded {
        Ok(loaded) => Ok(Some(MediaTools::new(loaded, projector))),
        Err(MediaError::Stopped) => Err(LoadError::Stopped),
        Err(error) => Err(ProjectorError::Unusable { path: path.clone(), reason: error.to_string() }.into()),
    }
}

fn load_mode(planned: &Planned) -> LoadMode {
    let Planned { plan, settings, .. } = planned;
    match (plan.mode, settings.choice) {
        // Asked for by name, resident keeps the file's layout, so that its logits are those of streaming.
        (Mode::FullResident, Choice::Resident) => LoadMode::Decorated { streamed: Vec::new() },
        // Only graphs on our device can be looked into.
        (Mode::FullResident, _) if settings.routes.is_active() => {
            LoadMode::Decorated { streamed: Vec::new() }
        }
        (Mode::FullResident, _) => LoadMode::Plain { repack: true, mmap: false },
        (Mode::ExpertStreaming | Mode::DenseStreaming | Mode::MixedStreaming, _) => {
            LoadMode::Decorated { streamed: streamed_patterns(planned) }
        }
    }
}

/// Regular expressions for the streamed tensors, one per kind of tensor: llama.cpp compiles each of them anew for every
/// tensor of the model.
fn streamed_patterns(planned: &Planned) -> Vec<String> {
    let Planned { plan, layout, source, .. } = planned;
    let parts = layout.layers.iter().flat_map(|layer| &layer.parts);
    let experts = parts.filter(|_| plan.mode.streams_experts()).map(|part| part.tensor.as_str());
    let dense = plan.streamed_dense.iter().map(|index| source.shape.tensors[*index].info.name.as_str());
    let mut layers_by_kind: Vec<(String, Vec<String>)> = Vec::new();
    for name in experts.chain(dense) {
        let Some((layer, kind)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            layers_by_kind.push((escape(name), Vec::new()));
            continue;
        };
        match layers_by_kind.iter_mut().find(|(known, _)| known == kind) {
            Some((_, layers)) => layers.push(layer.to_owned()),
            None => layers_by_kind.push((kind.to_owned(), vec![layer.to_owned()])),
        }
    }
    layers_by_kind
        .into_iter()
        .map(|(kind, layers)| match layers.as_slice() {
            [] => format!("^{kind}$"),
            _ => format!("^blk\\.({})\\.{}$", layers.join("|"), escape(&kind)),
        })
        .collect()
}

fn escape(name: &str) -> String {
    name.replace('.', "\\.")
}

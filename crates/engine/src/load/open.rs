//! Loading what was planned: memory, readers, llama.cpp's model and context, and the weights that stay.

use hypura_core::plan::{Basis, Entry, Homes, Ledger, PoolId, Purpose};
use hypura_ggml::{
    Batch, Context, ContextOptions, DecodeError, LoadMode, MediaError, Model, Projector, nodes_of,
};
use hypura_storage::{Reader, ReaderConfig, ReaderKind, open_reader};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use super::assemble::{Assembled, assemble};
use super::fill::{ensure_all_asked, fill};
use super::measure::{context_ledger, context_options};
use super::names::load_options;
use super::prepare::{Planned, prepare};
use crate::error::LoadError;
use crate::media::MediaTools;
use crate::media::projector::ProjectorError;
use crate::source::ModelSource;
use crate::stream::handle::StreamHandle;
use crate::stream::signals::Signals;
use crate::stream::{ExpertMap, SharedStats};
use crate::threads::ThreadControl;
use crate::workers::{self, Worker};

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
    /// Grows with every read that lands.
    pub(super) landed: Arc<AtomicU64>,
    /// How long loading took.
    pub load_time: Duration,
    /// All bytes that the model holds now.
    pub ledger: Ledger,
    /// Name of the reader; `None` when nothing streams.
    pub reader: Option<&'static str>,
    /// What the user may want to know (a fallback that was taken).
    pub notes: Vec<String>,
    /// What makes rows of media.
    pub(crate) media: Option<MediaTools>,
    /// How many threads compute.
    pub(crate) threads: ThreadControl,
    /// What streams experts, if anything does.
    pub(super) stream: Option<StreamHandle>,
    /// What drafts for it.
    pub(crate) draft: Option<Box<LoadedModel>>,
}

/// Writes down what llama.cpp allocated for a context.
fn note_context(ledger: &mut Ledger, context: &Context, homes: &Homes, workers: &[Worker]) {
    let used = context_ledger(context, homes, workers, Basis::Exact);
    let others = workers::pools(workers).map(|(pool, _)| pool);
    let pools: BTreeSet<PoolId> = [PoolId::HOST, PoolId::DEVICE].into_iter().chain(others).collect();
    for purpose in [Purpose::Kv, Purpose::Compute] {
        for pool in pools.iter().copied() {
            let bytes = used.bytes(pool, purpose);
            ledger.set(Entry { pool, purpose, bytes, basis: Basis::Exact });
        }
    }
}

/// Writes down what was allocated for a purpose.
fn note(ledger: &mut Ledger, purpose: Purpose, bytes: u64) {
    ledger.set(Entry { pool: PoolId::HOST, purpose, bytes, basis: Basis::Exact });
}

impl LoadedModel {
    /// The context was made anew.
    pub(crate) fn context_rebuilt(&mut self) {
        let Planned { plan, workers, .. } = &self.planned;
        note_context(&mut self.ledger, &self.context, &plan.homes, workers);
    }

    /// Computes a batch, with as many threads as are best now.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub(crate) fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        let tokens = batch.len();
        self.threads.begin_step(&mut self.context, tokens);
        let (start, stalled) = (Instant::now(), self.stats.get().read_stall);
        if let Err(error) = self.context.decode(batch) {
            self.threads.drop_step();
            return Err(error);
        }
        let stalled = self.stats.get().read_stall.saturating_sub(stalled);
        self.threads.end_step(&self.context, tokens, start.elapsed().saturating_sub(stalled));
        self.stats.set_beside(self.threads.usage(), workers::traffic(&self.planned.workers));
        Ok(())
    }

    /// What grows while a step gets on, that of a draft model too.
    pub(crate) fn movement(&self) -> Vec<Arc<AtomicU64>> {
        let mut counts = vec![nodes_of(&self.context), Arc::clone(&self.landed)];
        counts.extend(self.draft.iter().flat_map(|draft| draft.movement()));
        counts
    }

    /// Slots of experts of each size class that there are now.
    pub(crate) fn slots(&self) -> Vec<u32> {
        self.stream.as_ref().map(StreamHandle::slots).unwrap_or_default()
    }

    /// Which experts are in memory; `None` where none stream. Not while a step is computed.
    pub(crate) fn experts(&self) -> Option<ExpertMap> {
        self.stream.as_ref().and_then(StreamHandle::experts)
    }

    /// Bytes of slots that could be given up.
    pub(crate) fn spare_bytes(&self) -> u64 {
        self.stream.as_ref().map_or(0, StreamHandle::spare_bytes)
    }

    /// Has the cache of experts give up at least so many bytes, as far as it can; returns how many.
    pub(crate) fn give_back(&mut self, bytes: u64) -> u64 {
        let freed = self.stream.as_ref().map_or(0, |stream| stream.give_back(bytes));
        let held = self.ledger.bytes_for(Purpose::Slots).saturating_sub(freed);
        note(&mut self.ledger, Purpose::Slots, held);
        freed
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
    let (stats, signals) = (Arc::<SharedStats>::default(), Signals::default());
    let mut notes = planned.notes.clone();
    let options = load_options(&planned)?;
    let decorated = matches!(options.mode, LoadMode::Decorated { .. });
    let pending = if decorated {
        Model::load(&options)?
    } else {
        // llama.cpp reads the weights itself, and tells how far it is.
        let total = planned.plan.resident_bytes();
        Model::load_watched(&options, &mut |share| watch((total as f64 * f64::from(share)) as u64, total))?
    };
    let mut reader_name = None;
    let mut open = |kind: &ReaderKind, config: &ReaderConfig| -> Result<Box<dyn Reader>, LoadError> {
        let opened = open_reader(kind, config)?;
        reader_name = Some(opened.reader.name());
        if let Some(note) = opened.note
            && !notes.contains(&note)
        {
            notes.push(note);
        }
        Ok(opened.reader)
    };
    let Assembled { executors, stream, slots, kept } = assemble(&planned, &stats, &signals, &mut open)?;
    let model = if decorated {
        let mut reader = open(&settings.tuning.reader, &settings.reader_config())?;
        let kept = kept.reads(&planned.source.files);
        let total = kept.iter().fold(pending.resident_bytes(), |sum, read| sum + read.dst.len() as u64);
        pending.fill(|tensors| {
            ensure_all_asked(&planned.source.shape, &planned.plan, tensors)?;
            fill(&planned.source, tensors, kept, reader.as_mut(), total, watch)
        })?
    } else {
        pending.fill(|_| Ok::<(), LoadError>(()))?
    };
    planned.source.check_in_place()?;
    let media = load_projector(&planned, &model, watch)?;
    let options = options_of_context(&planned);
    let make = || Context::new(&model, &options, executors, Arc::clone(&signals.abort));
    let adapt = settings.tuning.threads_may_fall.then_some(planned.cores);
    let (context, threads) = ThreadControl::around(settings.tuning.threads, adapt, make)?;
    stats.set_beside(threads.usage(), workers::traffic(&planned.workers));
    let draft = load_draft(&planned)?.map(Box::new);
    let mut ledger = planned.plan.ledger.clone();
    note_context(&mut ledger, &context, &planned.plan.homes, &planned.workers);
    note(&mut ledger, Purpose::Slots, slots.as_ref().map_or(0, |(memory, _)| memory.len() as u64));
    // Only now, so that loading does not compete for pages.
    slots.iter().for_each(|(_, population)| population.start());
    Ok(LoadedModel {
        model,
        context,
        stats,
        abort: signals.abort,
        landed: signals.landed,
        load_time: start.elapsed(),
        ledger,
        reader: reader_name,
        notes,
        media,
        threads,
        planned,
        stream,
        draft,
    })
}

/// The draft model of a plan.
fn load_draft(planned: &Planned) -> Result<Option<LoadedModel>, LoadError> {
    let Some(draft) = &planned.draft else { return Ok(None) };
    let planned = prepare(ModelSource::open(draft.path())?, draft.settings(&planned.plan.context))?;
    load_watched(planned, &mut |_, _| true).map(Some)
}

fn options_of_context(planned: &Planned) -> ContextOptions {
    let Planned { plan, settings, source, gpu, .. } = planned;
    let options = context_options(&plan.context, settings.tuning.threads, source, gpu.as_ref());
    ContextOptions { reference_kernels: settings.hooks.reference_kernels, ..options }
}

/// The projector of a plan. `watch` is called as the load progresses, and may cancel it.
fn load_projector(
    planned: &Planned,
    model: &Model,
    watch: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Option<MediaTools>, LoadError> {
    let Some(projector) = &planned.projector else { return Ok(None) };
    let path = &projector.path;
    let total = planned.plan.resident_bytes();
    let loaded = Projector::load(path, model, planned.settings.tuning.threads, &mut |_| watch(total, total));
    match loaded {
        Ok(loaded) => Ok(Some(MediaTools::new(loaded, projector))),
        Err(MediaError::Stopped) => Err(LoadError::Stopped),
        Err(error) => Err(ProjectorError::Unusable { path: path.clone(), reason: error.to_string() }.into()),
    }
}

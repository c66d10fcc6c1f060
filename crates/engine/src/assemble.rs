//! From a plan to the executor of a context, with its memory and its readers.

use hypura_ggml::Executor;
use hypura_storage::{Arena, Reader, ReaderKind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hypura_core::plan::Mode;

use crate::error::LoadError;
use crate::load::Planned;
use crate::stream::SharedStats;
use crate::stream::ahead::Ahead;
use crate::stream::dense::{DenseStreamer, DenseWeight};
use crate::stream::executor::{ExpertSide, StreamExecutor};
use crate::stream::experts::ExpertStreamer;
use crate::stream::io::Io;
use crate::stream::routes::{ObservedExecutor, RouteTap};
use crate::stream::selection::Selection;
use crate::stream::slab::{Cells, make_slabs};

/// Opens a reader.
pub(crate) type Open<'a> = dyn FnMut(&ReaderKind) -> Result<Box<dyn Reader>, LoadError> + 'a;

/// What runs a context's graphs.
pub(crate) struct Assembled {
    /// `None` where llama.cpp needs no help.
    pub executor: Option<Box<dyn Executor>>,
    /// The memory of the slots of experts.
    pub slots: Option<Arc<Arena>>,
}

/// Allocates slots and rings, and opens readers for them.
pub(crate) fn assemble(
    planned: &Planned,
    stats: &Arc<SharedStats>,
    abort: &Arc<AtomicBool>,
    open: &mut Open<'_>,
) -> Result<Assembled, LoadError> {
    let Planned { plan, settings, .. } = planned;
    if plan.mode == Mode::FullResident {
        let observed = settings.routes.is_active();
        let executor = observed.then(|| -> Box<dyn Executor> { Box::new(observed_executor(planned)) });
        return Ok(Assembled { executor, slots: None });
    }
    let kind = settings.stream_reader.as_ref().unwrap_or(&settings.reader);
    let experts =
        if plan.mode.streams_experts() { Some(expert_side(planned, open(kind)?, abort)?) } else { None };
    let slots = experts.as_ref().and_then(|side| side.streamer.memory().cloned());
    let dense = if plan.mode.streams_dense() { Some(dense_side(planned, open(kind)?, abort)?) } else { None };
    let publishes = settings.statistics.then(|| Arc::clone(stats));
    Ok(Assembled { executor: Some(Box::new(StreamExecutor::new(experts, dense, publishes))), slots })
}

fn expert_side(
    planned: &Planned,
    reader: Box<dyn Reader>,
    abort: &Arc<AtomicBool>,
) -> Result<ExpertSide, LoadError> {
    let Planned { source, layout, plan, settings, .. } = planned;
    let policy = |slots| settings.policy.build(slots, source.shape.layers);
    let slabs = make_slabs(layout, &plan.slots, policy, settings.poison)?;
    let cells = Cells::new(plan.cells, plan.cell_bytes, settings.poison)?;
    let streamer = ExpertStreamer::new(layout.clone(), slabs, cells);
    if let Some(memory) = streamer.memory().filter(|_| settings.populate_first) {
        memory.populate();
    }
    let streamer = if settings.synchronous_reads { streamer.synchronous() } else { streamer };
    let io =
        Io::new(reader, source.files.clone()).with_clock(settings.statistics).with_abort(Arc::clone(abort));
    let selections = layout.layers.iter().map(|layer| Selection::of(source, layer)).collect();
    let ahead = Ahead::new(settings.prefetch, selections);
    let tap = settings.routes.is_active().then(|| RouteTap::new(settings.routes.clone()));
    Ok(ExpertSide { streamer, io, ahead, tap })
}

fn observed_executor(planned: &Planned) -> ObservedExecutor {
    let layers = planned.source.shape.expert_layers.iter();
    let experts = layers.map(|layer| (layer.layer, layer.experts)).collect();
    ObservedExecutor::new(planned.settings.routes.clone(), experts)
}

fn dense_side(
    planned: &Planned,
    reader: Box<dyn Reader>,
    abort: &Arc<AtomicBool>,
) -> Result<DenseStreamer, LoadError> {
    let Planned { source, plan, settings, .. } = planned;
    let weight = |index: &usize| {
        let info = &source.shape.tensors[*index].info;
        DenseWeight {
            tensor: info.name.clone(),
            shard: info.shard,
            offset: info.offset,
            bytes: usize::try_from(info.bytes).unwrap_or(usize::MAX),
        }
    };
    let weights = plan.streamed_dense.iter().map(weight).collect();
    let cells = Cells::new(plan.ring_cells, plan.ring_cell_bytes, settings.poison)?;
    let io =
        Io::new(reader, source.files.clone()).with_clock(settings.statistics).with_abort(Arc::clone(abort));
    Ok(DenseStreamer::new(weights, cells, io))
}

//! From a plan to the executor of a context, with its memory and its readers.

use hypura_ggml::Executor;
use hypura_storage::{Arena, Reader, ReaderKind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hypura_core::plan::{DensePlan, ExpertPlan};

use super::prepare::Planned;
use crate::error::LoadError;
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
pub(super) type Open<'a> = dyn FnMut(&ReaderKind) -> Result<Box<dyn Reader>, LoadError> + 'a;

/// What runs a context's graphs.
pub(super) struct Assembled {
    /// `None` where llama.cpp needs no help.
    pub executor: Option<Box<dyn Executor>>,
    /// The memory of the slots of experts.
    pub slots: Option<Arc<Arena>>,
}

/// Allocates slots and rings, and opens readers for them.
pub(super) fn assemble(
    planned: &Planned,
    stats: &Arc<SharedStats>,
    abort: &Arc<AtomicBool>,
    open: &mut Open<'_>,
) -> Result<Assembled, LoadError> {
    let Planned { plan, settings, .. } = planned;
    if plan.experts.is_none() && plan.dense.is_none() {
        let observed = settings.tuning.routes.is_active();
        let executor = observed.then(|| -> Box<dyn Executor> { Box::new(observed_executor(planned)) });
        return Ok(Assembled { executor, slots: None });
    }
    let kind = settings.hooks.stream_reader.as_ref().unwrap_or(&settings.tuning.reader);
    let experts = plan.experts.as_ref().map(|experts| expert_side(planned, experts, open(kind)?, abort));
    let experts = experts.transpose()?;
    let slots = experts.as_ref().and_then(|side| side.streamer.memory().cloned());
    let dense =
        plan.dense.as_ref().map(|dense| dense_side(planned, dense, open(kind)?, abort)).transpose()?;
    let publishes = settings.hooks.statistics.then(|| Arc::clone(stats));
    Ok(Assembled { executor: Some(Box::new(StreamExecutor::new(experts, dense, publishes))), slots })
}

fn expert_side(
    planned: &Planned,
    experts: &ExpertPlan,
    reader: Box<dyn Reader>,
    abort: &Arc<AtomicBool>,
) -> Result<ExpertSide, LoadError> {
    let Planned { source, layout, plan, settings, .. } = planned;
    let policy = |slots| settings.tuning.policy.build(slots, source.shape.layers);
    let slabs = make_slabs(layout, &plan.slots(layout), policy, settings.hooks.poison)?;
    let cells = Cells::new(experts.cells, experts.cell_bytes, settings.hooks.poison)?;
    let streamer = ExpertStreamer::new(layout.clone(), slabs, cells);
    if let Some(memory) = streamer.memory().filter(|_| settings.hooks.populate_first) {
        memory.populate();
    }
    let streamer = if settings.hooks.synchronous_reads { streamer.synchronous() } else { streamer };
    let io = Io::new(reader, source.files.clone())
        .with_clock(settings.hooks.statistics)
        .with_abort(Arc::clone(abort));
    let selections = layout.layers.iter().map(|layer| Selection::of(source, layer)).collect();
    let ahead = Ahead::new(settings.tuning.prefetch, selections);
    let tap = settings.tuning.routes.is_active().then(|| RouteTap::new(settings.tuning.routes.clone()));
    Ok(ExpertSide { streamer, io, ahead, tap })
}

fn observed_executor(planned: &Planned) -> ObservedExecutor {
    let layers = planned.source.shape.expert_layers.iter();
    let experts = layers.map(|layer| (layer.layer, layer.experts)).collect();
    ObservedExecutor::new(planned.settings.tuning.routes.clone(), experts)
}

fn dense_side(
    planned: &Planned,
    dense: &DensePlan,
    reader: Box<dyn Reader>,
    abort: &Arc<AtomicBool>,
) -> Result<DenseStreamer, LoadError> {
    let Planned { source, settings, .. } = planned;
    let weight = |index: &usize| {
        let info = &source.shape.tensors[*index].info;
        DenseWeight {
            tensor: info.name.clone(),
            shard: info.shard,
            offset: info.offset,
            bytes: usize::try_from(info.bytes).unwrap_or(usize::MAX),
        }
    };
    let weights = dense.weights.iter().map(weight).collect();
    let cells = Cells::new(dense.cells, dense.cell_bytes, settings.hooks.poison)?;
    let io = Io::new(reader, source.files.clone())
        .with_clock(settings.hooks.statistics)
        .with_abort(Arc::clone(abort));
    Ok(DenseStreamer::new(weights, cells, io))
}

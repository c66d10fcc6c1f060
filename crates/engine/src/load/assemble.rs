//! From a plan to the executor of a context, with its memory and its readers.

use hypura_ggml::{Device, DeviceExecutor};
use hypura_storage::{Arena, Reader, ReaderKind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hypura_core::plan::{DensePlan, ExpertPlan, PoolId};

use super::prepare::Planned;
use crate::error::LoadError;
use crate::stream::dense::{DenseStreamer, DenseWeight};
use crate::stream::device::DeviceSide;
use crate::stream::executor::{ExpertSide, StreamExecutor};
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::experts::ExpertStreamer;
use crate::stream::handle::StreamHandle;
use crate::stream::io::Io;
use crate::stream::prefetcher::Prefetcher;
use crate::stream::routes::{ObservedExecutor, RouteTap};
use crate::stream::selection::Selection;
use crate::stream::slots::device::Uploads;
use crate::stream::slots::{ScratchRing, make_pools};
use crate::stream::{SharedStats, StatsPart};

/// Opens a reader.
pub(super) type Open<'a> = dyn FnMut(&ReaderKind) -> Result<Box<dyn Reader>, LoadError> + 'a;

/// What runs a context's graphs.
pub(super) struct Assembled {
    /// None where llama.cpp needs no help.
    pub executors: Vec<DeviceExecutor>,
    /// The one of them that streams experts.
    pub stream: Option<StreamHandle>,
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
    let devices = &settings.model.devices;
    let mut assembled = Assembled { executors: Vec::new(), stream: None, slots: None };
    if plan.experts.is_none() && plan.dense.is_none() {
        if settings.tuning.routes.is_active() {
            let executor = Box::new(observed_executor(planned));
            assembled.executors.push((devices.of_resident_experts()?, executor));
        }
        return Ok(assembled);
    }
    let kind = settings.hooks.stream_reader.as_ref().unwrap_or(&settings.tuning.reader);
    let publish = || settings.hooks.statistics.then(|| StatsPart::of(stats));
    let (of_experts, of_dense) = (devices.of_experts()?, devices.of_dense()?);
    let uploads = uploads(of_experts)?;
    let (mut experts, mut dense) = (None, None);
    if let Some(plan) = &plan.experts {
        experts = Some(expert_side(planned, plan, open(kind)?, abort, uploads.as_ref())?);
    }
    assembled.slots = experts.as_ref().and_then(|side| side.streamer.slots().memory().cloned());
    if let Some(plan) = &plan.dense {
        let uploads = if of_dense == of_experts { uploads } else { self::uploads(of_dense)? };
        dense = Some(dense_side(planned, plan, open(kind)?, abort, uploads.as_ref())?);
    }
    if of_dense != of_experts && dense.is_some() {
        // Each device has an executor of its own.
        let executor = StreamHandle::new(StreamExecutor::new(None, dense.take(), publish()));
        assembled.executors.push((of_dense, Box::new(executor)));
    }
    if experts.is_some() || dense.is_some() {
        let executor = StreamHandle::new(StreamExecutor::new(experts, dense, publish()));
        assembled.executors.push((of_experts, Box::new(executor.clone())));
        assembled.stream = Some(executor);
    }
    Ok(assembled)
}

/// The way to a device that is not the host.
fn uploads(device: Device) -> Result<Option<Uploads>, LoadError> {
    if device.is_host() { Ok(None) } else { Uploads::new(device).map(Some) }
}

fn expert_side(
    planned: &Planned,
    experts: &ExpertPlan,
    reader: Box<dyn Reader>,
    abort: &Arc<AtomicBool>,
    uploads: Option<&Uploads>,
) -> Result<ExpertSide, LoadError> {
    let Planned { source, layout, plan, settings, .. } = planned;
    let policy = |slots| settings.tuning.policy.build(slots, source.shape.layers);
    let pools = make_pools(layout, &plan.slots(layout), &policy, settings.hooks.poison)?;
    let cells = ScratchRing::new(experts.cells, experts.cell_bytes, settings.hooks.poison)?;
    let streamer = ExpertStreamer::new(ExpertSlots::new(layout.clone(), pools, cells));
    if let Some(memory) = streamer.slots().memory().filter(|_| settings.hooks.populate_first) {
        memory.populate();
    }
    let streamer = if settings.hooks.synchronous_reads { streamer.synchronous() } else { streamer };
    let streamer = match uploads {
        Some(uploads) => {
            let counts = device_slots(planned);
            let side = DeviceSide::new(uploads.clone(), streamer.slots(), &counts, &policy)?;
            streamer.on_device(side)
        }
        None => streamer,
    };
    let io = Io::new(reader, source.files.clone())
        .with_clock(settings.hooks.statistics)
        .with_abort(Arc::clone(abort));
    let selections = layout.layers.iter().map(|layer| Selection::of(source, layer)).collect();
    let prefetcher = Prefetcher::new(settings.tuning.prefetch, selections);
    let tap = settings.tuning.routes.is_active().then(|| RouteTap::new(settings.tuning.routes.clone()));
    Ok(ExpertSide { streamer, io, prefetcher, tap })
}

/// Slots of each class on the device that computes streamed experts.
fn device_slots(planned: &Planned) -> Vec<u32> {
    let Planned { plan, layout, settings, .. } = planned;
    match (plan.homes.streamed_experts, settings.model.devices.expert_slots) {
        (_, Some(slots)) => vec![slots; layout.classes.len()],
        (PoolId::HOST, None) => plan.slots(layout),
        (pool, None) => plan.slots_in(pool, layout),
    }
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
    uploads: Option<&Uploads>,
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
    let cells = ScratchRing::new(dense.cells, dense.cell_bytes, settings.hooks.poison)?;
    let io = Io::new(reader, source.files.clone())
        .with_clock(settings.hooks.statistics)
        .with_abort(Arc::clone(abort));
    let streamer = DenseStreamer::new(weights, cells, io);
    match uploads {
        Some(uploads) => streamer.on_device(uploads.clone()),
        None => Ok(streamer),
    }
}

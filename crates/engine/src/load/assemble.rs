//! From a plan to the executor of a context, with its memory and its readers.

use hypura_ggml::{Device, DeviceExecutor};
use hypura_storage::{Arena, Population, Reader, ReaderConfig, ReaderKind};
use std::sync::Arc;

use hypura_core::plan::{DensePlan, ExpertPlan, PoolId, StreamedTable, TablePlan};

use super::prepare::Planned;
use crate::error::LoadError;
use crate::stream::dense::{DenseStreamer, DenseWeight, KeptWeights};
use crate::stream::device::{DeviceSide, InPlace};
use crate::stream::executor::{ExpertSide, StreamExecutor, Streams};
use crate::stream::expert_slots::ExpertSlots;
use crate::stream::experts::ExpertStreamer;
use crate::stream::handle::StreamHandle;
use crate::stream::io::Io;
use crate::stream::prefetcher::Prefetcher;
use crate::stream::routes::{ObservedExecutor, RouteTap};
use crate::stream::row_batch::RowTable;
use crate::stream::selection::Selection;
use crate::stream::signals::Signals;
use crate::stream::slots::device::Uploads;
use crate::stream::slots::{ScratchRing, make_pools};
use crate::stream::tables::TableStreamer;
use crate::stream::{SharedStats, StatsPart};

/// Opens a reader.
pub(super) type Open<'a> = dyn FnMut(&ReaderKind, &ReaderConfig) -> Result<Box<dyn Reader>, LoadError> + 'a;

/// Reads of rows that are at the disk at once: it takes hundreds of single pages to keep one busy.
const ROWS_DEPTH: usize = 256;
/// Threads of a reader that has one for each of them.
const ROWS_THREADS: usize = 32;

/// What runs a context's graphs.
pub(super) struct Assembled {
    /// None where llama.cpp needs no help.
    pub executors: Vec<DeviceExecutor>,
    /// The one of them that streams experts.
    pub stream: Option<StreamHandle>,
    /// The memory of the slots of experts, and who touches it.
    pub slots: Option<(Arc<Arena>, Arc<Population>)>,
    /// Dense weights that a device gets from the host's memory, where they are yet to be read to.
    pub kept: KeptWeights,
}

/// Allocates slots and rings, and opens readers for them.
pub(super) fn assemble(
    planned: &Planned,
    stats: &Arc<SharedStats>,
    signals: &Signals,
    open: &mut Open<'_>,
) -> Result<Assembled, LoadError> {
    let Planned { plan, settings, .. } = planned;
    let devices = &settings.model.devices;
    let mut assembled =
        Assembled { executors: Vec::new(), stream: None, slots: None, kept: KeptWeights::default() };
    if plan.experts.is_none() && plan.dense.is_none() && plan.tables.is_none() {
        if settings.tuning.routes.is_active() {
            let executor = Box::new(observed_executor(planned));
            assembled.executors.push((devices.of_resident_experts()?, executor));
        }
        return Ok(assembled);
    }
    let kind = settings.hooks.stream_reader.as_ref().unwrap_or(&settings.tuning.reader);
    let config = settings.reader_config();
    let (of_experts, of_dense) = (devices.of_experts()?, devices.of_dense()?);
    let uploads = if devices.in_place { None } else { uploads(of_experts)? };
    // Each device has an executor of its own.
    let mut streams: Vec<(Device, Streams)> = Vec::new();
    if let Some(plan) = &plan.experts {
        let side = expert_side(planned, plan, open(kind, &config)?, signals, uploads.as_ref())?;
        let slots = side.streamer.slots();
        assembled.slots = slots.memory().cloned().zip(slots.population().cloned());
        on(&mut streams, of_experts).experts = Some(side);
    }
    if let Some(plan) = &plan.dense {
        let side = dense_side(planned, plan, open(kind, &config)?, signals)?;
        let side = if of_dense.is_host() {
            side
        } else if devices.in_place {
            side.in_place(of_dense)?
        } else {
            assembled.kept = kept_weights(plan, side.weights())?;
            let uploads = match uploads.filter(|_| of_dense == of_experts) {
                Some(uploads) => uploads,
                None => Uploads::new(of_dense)?,
            };
            side.on_device(uploads, device_cells(plan), assembled.kept.clone())?
        };
        on(&mut streams, of_dense).dense = Some(side);
    }
    if let Some(plan) = &plan.tables {
        let depth = config.depth.max(ROWS_DEPTH);
        let config = ReaderConfig { depth, threads: config.threads.max(ROWS_THREADS), ..config };
        let side = table_side(planned, plan, open(kind, &config)?, signals)?;
        on(&mut streams, Device::cpu()?).tables = Some(side);
    }
    for (device, streams) in streams {
        let publish = settings.hooks.statistics.then(|| StatsPart::of(stats));
        let executor = StreamHandle::new(StreamExecutor::new(streams, publish));
        if device == of_experts {
            assembled.stream = Some(executor.clone());
        }
        assembled.executors.push((device, Box::new(executor)));
    }
    Ok(assembled)
}

/// What streams on a device.
fn on(all: &mut Vec<(Device, Streams)>, device: Device) -> &mut Streams {
    let at = all.iter().position(|(other, _)| *other == device).unwrap_or_else(|| {
        all.push((device, Streams::default()));
        all.len() - 1
    });
    &mut all[at].1
}

/// The way to a device that is not the host.
fn uploads(device: Device) -> Result<Option<Uploads>, LoadError> {
    if device.is_host() { Ok(None) } else { Uploads::new(device).map(Some) }
}

fn expert_side(
    planned: &Planned,
    experts: &ExpertPlan,
    reader: Box<dyn Reader>,
    signals: &Signals,
    uploads: Option<&Uploads>,
) -> Result<ExpertSide, LoadError> {
    let Planned { source, layout, plan, settings, .. } = planned;
    let policy = |slots| settings.tuning.policy.build(slots, source.shape.layers);
    let pools = make_pools(layout, &plan.slots(layout), &policy, settings.hooks.poison)?;
    let cells = ScratchRing::new(experts.cells, experts.cell_bytes, settings.hooks.poison)?;
    let streamer = ExpertStreamer::new(ExpertSlots::new(layout.clone(), pools, cells));
    let population = streamer.slots().population().cloned();
    if let Some(population) = population.as_ref().filter(|_| settings.hooks.populate_first) {
        population.finish();
    }
    let streamer = if settings.hooks.synchronous_reads { streamer.synchronous() } else { streamer };
    let streamer = match uploads {
        Some(uploads) => {
            let counts = device_slots(planned);
            let side = DeviceSide::new(uploads.clone(), streamer.slots(), &counts, &policy)?;
            streamer.on_device(side)
        }
        None if settings.model.devices.in_place => {
            let device = settings.model.devices.of_experts()?;
            let in_place = InPlace::new(device, streamer.slots())?;
            streamer.in_place(in_place)
        }
        None => streamer,
    };
    let io = Io::new(reader, source.files.clone())
        .with_clock(settings.hooks.statistics)
        .with_signals(signals.clone())
        .with_population(population);
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
    signals: &Signals,
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
        .with_signals(signals.clone());
    Ok(DenseStreamer::new(weights, cells, io))
}

/// Cells on the device; as many as the host has where the plan knows nothing of it.
fn device_cells(plan: &DensePlan) -> usize {
    if plan.device_cells > 0 { plan.device_cells } else { plan.cells }
}

/// Memory for the weights of a plan that a device gets from there.
fn kept_weights(plan: &DensePlan, weights: &[DenseWeight]) -> Result<KeptWeights, LoadError> {
    let is_kept = |index: &usize| plan.kept.contains(&plan.weights[*index]);
    let kept: Vec<usize> = (0..plan.weights.len()).filter(is_kept).collect();
    Ok(KeptWeights::new(weights, &kept)?)
}

fn table_side(
    planned: &Planned,
    plan: &TablePlan,
    reader: Box<dyn Reader>,
    signals: &Signals,
) -> Result<TableStreamer, LoadError> {
    let Planned { source, settings, .. } = planned;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let table = |table: &StreamedTable| {
        let info = &source.shape.tensors[table.weight].info;
        RowTable {
            tensor: info.name.clone(),
            shard: info.shard,
            offset: info.offset,
            file_bytes: source.files[info.shard].len(),
            row_bytes: size(table.row_bytes),
            cache_rows: table.cache_rows,
        }
    };
    let io = Io::new(reader, source.files.clone())
        .with_clock(settings.hooks.statistics)
        .with_signals(signals.clone());
    let tables = plan.tables.iter().map(table).collect();
    Ok(TableStreamer::new(tables, size(plan.staging_bytes), io, settings.hooks.poison)?)
}

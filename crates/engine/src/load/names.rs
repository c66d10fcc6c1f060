//! How llama.cpp loads the weights, and which of them it leaves to us: as regular expressions over names of
//! tensors.

use hypura_core::model::ModelTensor;
use hypura_core::plan::{Mode, PoolId, Residency};
use hypura_ggml::{Device, LoadMode, LoadOptions, Placement, WeightMemory};

use super::devices::DeviceSettings;
use super::offload::{patterns, place, place_on_workers};
use super::prepare::Planned;
use crate::error::LoadError;
use crate::workers::{self, Worker};

/// Which kernels compute with the weights. They round differently, so their bits are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Those for the layout of the file: the same for weights that stream and weights that stay.
    FileLayout,
    /// Those for weights that llama.cpp repacked while it loaded them.
    Repacked,
}

impl Kernels {
    /// Name for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FileLayout => "file-layout",
            Self::Repacked => "repacked",
        }
    }
}

impl Planned {
    /// Which kernels compute.
    #[must_use]
    pub fn kernels(&self) -> Kernels {
        // Asked for by name, resident keeps the file's layout, so that its logits are those of streaming. And
        // only graphs on our device can be looked into.
        let asked =
            self.settings.model.residency == Residency::Resident || self.settings.tuning.routes.is_active();
        if self.plan.mode() == Mode::FullResident && !asked { Kernels::Repacked } else { Kernels::FileLayout }
    }
}

/// How llama.cpp loads what was planned.
pub(super) fn load_options(planned: &Planned) -> Result<LoadOptions, LoadError> {
    let devices = &planned.settings.model.devices;
    let mode = match planned.kernels() {
        Kernels::Repacked => LoadMode::Plain { repack: true, mmap: false },
        Kernels::FileLayout => {
            let mut placements = streamed_placements(planned)?;
            placements.extend(match &planned.gpu {
                Some(gpu) => at_home(planned, gpu.device),
                None if !planned.workers.is_empty() => on_workers(planned),
                None => resident_placements(planned)?,
            });
            LoadMode::Decorated { placements }
        }
    };
    let mut options = LoadOptions::on_cpu(planned.source.path.clone(), mode);
    (options.devices, options.gpu_layers) = (devices.all(), devices.gpu_layers);
    if let Some(gpu) = &planned.gpu {
        place(&mut options, &planned.source.shape, &planned.plan.homes, gpu.device);
    }
    place_on_workers(&mut options, &planned.source.shape, &planned.plan.homes, &planned.workers);
    Ok(options)
}

/// Weights at home on workers.
fn on_workers(planned: &Planned) -> Vec<Placement> {
    let Planned { plan, source, .. } = planned;
    let of_worker = |(pool, worker): (PoolId, &Worker)| {
        let there = source.shape.tensors.iter().filter(|tensor| plan.homes.of(tensor) == pool);
        let device = worker.device;
        let resident = move |pattern| Placement { pattern, memory: WeightMemory::Resident, device };
        patterns(there.map(|tensor| tensor.info.name.as_str())).into_iter().map(resident).collect::<Vec<_>>()
    };
    workers::pools(&planned.workers).flat_map(of_worker).collect()
}

/// Weights at home in the memory of a device.
fn at_home(planned: &Planned, device: Device) -> Vec<Placement> {
    let resident = |pattern| Placement { pattern, memory: WeightMemory::Resident, device };
    patterns(device_names(planned)).into_iter().map(resident).collect()
}

fn device_names(planned: &Planned) -> impl Iterator<Item = &str> {
    let Planned { plan, source, .. } = planned;
    let homes = &plan.homes;
    // Factors of rotary positions belong to no layer and are read by all: they are where most layers are,
    // because a product of one device and weights of another is computed where the weights are.
    let ropes = 2 * homes.device_layers() as usize > homes.layers.len();
    let there = move |tensor: &&ModelTensor| {
        homes.of(tensor) != PoolId::HOST || (ropes && tensor.info.name.starts_with("rope_"))
    };
    source.shape.tensors.iter().filter(there).map(|tensor| tensor.info.name.as_str())
}

/// Weights that stay in the memory of a device: those of the layers that llama.cpp gives it.
fn resident_placements(planned: &Planned) -> Result<Vec<Placement>, LoadError> {
    let DeviceSettings { devices, gpu_layers, .. } = &planned.settings.model.devices;
    let layers = planned.source.shape.layers;
    let wanted = u32::try_from(*gpu_layers).unwrap_or(u32::MAX).min(layers.saturating_add(1));
    if devices.is_empty() || wanted == 0 {
        return Ok(Vec::new());
    }
    let [device] = devices.as_slice() else { return Err(LoadError::Devices) };
    let numbers: Vec<String> = (layers + 1 - wanted..layers).map(|layer| layer.to_string()).collect();
    let place = |pattern| Placement { pattern, memory: WeightMemory::Resident, device: *device };
    let of_layers = (!numbers.is_empty()).then(|| format!("^blk\\.({})\\.", numbers.join("|")));
    Ok(of_layers.into_iter().chain(["^output".to_owned()]).map(place).collect())
}

/// Weights that stream.
fn streamed_placements(planned: &Planned) -> Result<Vec<Placement>, LoadError> {
    let Planned { plan, layout, source, settings, .. } = planned;
    let parts = layout.layers.iter().flat_map(|layer| &layer.parts);
    let experts = parts.filter(|_| plan.experts.is_some()).map(|part| part.tensor.as_str());
    let dense = plan.streamed_dense().iter().map(|index| source.shape.tensors[*index].info.name.as_str());
    let tables = plan.streamed_tables().iter();
    let tables = tables.map(|table| source.shape.tensors[table.weight].info.name.as_str());
    let mut placements = Vec::new();
    for (device, patterns) in [
        (Device::cpu()?, patterns(tables)),
        (settings.model.devices.of_experts()?, patterns(experts)),
        (settings.model.devices.of_dense()?, patterns(dense)),
    ] {
        let streamed = |pattern| Placement { pattern, memory: WeightMemory::Streamed, device };
        placements.extend(patterns.into_iter().map(streamed));
    }
    Ok(placements)
}

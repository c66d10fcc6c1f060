//! Layers on a device, as llama.cpp is told of them: how many, and which of their weights stay with the CPU.

use hypura_core::model::{ModelShape, ModelTensor, TensorRole};
use hypura_core::plan::{Homes, PoolId};
use hypura_ggml::{Device, LoadMode, LoadOptions, Placement, WeightMemory};

use crate::workers::{self, Worker};

/// Has llama.cpp put layers on the device where they are at home.
pub(super) fn place(options: &mut LoadOptions, shape: &ModelShape, homes: &Homes, device: Device) {
    let layers = homes.device_layers();
    if layers == 0 {
        return;
    }
    options.devices = vec![device];
    // llama.cpp counts from the very last layer.
    options.gpu_layers = i32::try_from(layers.saturating_add(shape.nextn_layers)).unwrap_or(i32::MAX);
    if !matches!(options.mode, LoadMode::Decorated { .. }) {
        options.on_cpu = patterns(host_names(shape, homes));
    }
}

/// Has llama.cpp put layers on workers where they are at home.
pub(super) fn place_on_workers(options: &mut LoadOptions, shape: &ModelShape, homes: &Homes, all: &[Worker]) {
    workers::set_layers(all, homes);
    let used = workers::pools(all).map(|(pool, worker)| (worker.device, workers::layers(homes, pool).1));
    let (devices, mut split): (Vec<Device>, Vec<u32>) = used.filter(|(_, layers)| *layers > 0).unzip();
    let Some(last) = split.last_mut() else { return };
    // llama.cpp counts from the very last layer, with the output for one more. What belongs to none of the
    // layers is on the host by name.
    *last = last.saturating_add(1).saturating_add(shape.nextn_layers);
    let layers = split.iter().fold(0_u32, |sum, layers| sum.saturating_add(*layers));
    options.gpu_layers = i32::try_from(layers).unwrap_or(i32::MAX);
    (options.devices, options.split) = (devices, split);
    if !matches!(options.mode, LoadMode::Decorated { .. }) {
        // Factors of rotary positions are copied to each device that has layers.
        let stays = |tensor: &&ModelTensor| {
            tensor.layer.is_none_or(|layer| layer >= shape.layers) && !tensor.info.name.starts_with("rope_")
        };
        options.on_cpu = patterns(shape.tensors.iter().filter(stays).map(|tensor| tensor.info.name.as_str()));
    }
}

/// Weights at home on the host, of layers that llama.cpp would otherwise have on the device as a whole.
fn host_names<'a>(shape: &'a ModelShape, homes: &'a Homes) -> impl Iterator<Item = &'a str> {
    let stays = |tensor: &&ModelTensor| {
        let home = tensor.layer.and_then(|layer| homes.layers.get(layer as usize));
        let streams = homes.streamed_experts != PoolId::HOST && is_expert(tensor);
        home.is_some_and(|home| home.dense != PoolId::HOST) && homes.of(tensor) == PoolId::HOST && !streams
    };
    shape.tensors.iter().filter(stays).map(|tensor| tensor.info.name.as_str())
}

const fn is_expert(tensor: &ModelTensor) -> bool {
    matches!(tensor.role, TensorRole::RoutedExpert(_))
}

/// All routed experts, streamed to a device.
pub(super) fn streamed_experts(shape: &ModelShape, device: Device) -> Vec<Placement> {
    let experts = shape.tensors.iter().filter(|tensor| is_expert(tensor));
    let streamed = |pattern| Placement { pattern, memory: WeightMemory::Streamed, device };
    patterns(experts.map(|tensor| tensor.info.name.as_str())).into_iter().map(streamed).collect()
}

/// Regular expressions for tensors, one per kind of tensor: llama.cpp compiles each of them anew for every
/// tensor of the model.
pub(super) fn patterns<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut layers_by_kind: Vec<(String, Vec<String>)> = Vec::new();
    for name in names {
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

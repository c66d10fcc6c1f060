//! Which GPU computes, and how much of its memory may be used.

use hypura_core::model::{ModelShape, TensorRole};
use hypura_core::plan::{BankRules, ExpertHome, Homes, Plan, PlanRequest, PoolId, Pools, human_bytes};
use hypura_ggml::libraries;
use hypura_ggml::system::{self, DeviceInfo};
use hypura_ggml::{Device, DeviceBuffer};
use hypura_storage::memory::{MemoryLimit, memory_available};
use hypura_storage::process::{own_memory, peak_rss_bytes};
use hypura_storage::{Arena, HugePages};
use std::sync::OnceLock;

use crate::error::LoadError;
use crate::stream::slots::device::Source;
use crate::workers::Worker;

/// What the user wants to compute on.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DeviceChoice {
    /// The CPU alone.
    #[default]
    None,
    /// The GPU with most free memory, discrete ones first; the CPU alone where there is none.
    Auto,
    /// The GPU of this name.
    Named(String),
}

impl DeviceChoice {
    /// A choice as people write it: `auto`, `none`, or a name.
    #[must_use]
    pub fn named(text: &str) -> Self {
        match text {
            "none" | "cpu" | "CPU" => Self::None,
            "auto" => Self::Auto,
            name => Self::Named(name.to_owned()),
        }
    }
}

/// What the user wants of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceOptions {
    /// Which.
    pub choice: DeviceChoice,
    /// Bytes of its memory that may be used; what is free there, less headroom, when nobody says so.
    pub vram_bytes: Option<u64>,
    /// Layers that it computes, the output projection counted as one, in place of as many as fit.
    pub layers: Option<u32>,
    /// Whether the CPU computes routed experts even where they would fit, or the GPU even where they do not.
    pub experts: ExpertHome,
    /// Whether its memory is the host's; as the driver says, but in tests.
    pub is_unified: Option<bool>,
}

/// A GPU that was chosen.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// ggml's device.
    pub(crate) device: Device,
    /// What ggml says of it.
    pub info: DeviceInfo,
    /// Bytes of its memory that may be used.
    pub budget_bytes: u64,
    /// Whether llama.cpp may use flash attention there.
    pub flash_attention: bool,
    /// Whether it computes with the host's memory, where it is.
    pub in_place: bool,
}

/// Drivers and kernels allocate beside us, and the display lives there too: this much of a GPU's memory is
/// left alone, as one part in so many of all of it, within these bounds.
const HEADROOM_SHARE: u64 = 16;
const LEAST_HEADROOM: u64 = 256 << 20;
const MOST_HEADROOM: u64 = 1 << 30;

/// A device is asked to compute with so much of the host's memory to see whether it does: whole pages on any
/// system.
const PROBE_BYTES: usize = 64 << 10;

/// Bytes of memory of this process before any GPU was looked for, and what it had grown by when the one that
/// is used had been opened.
static BEFORE: OnceLock<Held> = OnceLock::new();
static OPENED: OnceLock<u64> = OnceLock::new();

/// Drivers take more than this: less is what the process took meanwhile for something else.
const LEAST_DRIVER_BYTES: u64 = 1 << 20;

/// Drivers compile kernels when they are first used, and keep them: as much as Mesa's software driver was
/// seen to take for a model.
const KERNELS_BYTES: u64 = 64 << 20;

/// Weights go to a device through memory of its driver, in parts of this size (`load::fill`).
const STAGING_BYTES: u64 = 64 << 20;

/// Memory in use, as far as the system says.
#[derive(Clone, Debug, Default)]
struct Held {
    /// This process's own.
    own_bytes: Option<u64>,
    /// The most that was resident of it, the code of libraries included.
    peak_bytes: Option<u64>,
    /// That of the control group with the tightest limit: what the kernel holds for a driver shows there
    /// alone.
    group: Option<MemoryLimit>,
}

impl Held {
    fn now() -> Self {
        let own = own_memory(None).ok();
        Self {
            own_bytes: own.map(|memory| memory.anonymous_bytes + memory.shared_bytes),
            peak_bytes: peak_rss_bytes().ok(),
            group: memory_available().ok().and_then(|memory| memory.limit),
        }
    }

    fn grown_bytes(&self, before: &Self) -> u64 {
        let grown = |before: Option<u64>, now: Option<u64>| {
            before.zip(now).map_or(0, |(before, now)| now.saturating_sub(before))
        };
        let group = self.group.as_ref();
        let before_group =
            before.group.as_ref().filter(|before| group.is_some_and(|now| now.group == before.group));
        let used = |group: Option<&MemoryLimit>| group.map(|group| group.used_bytes);
        grown(before.own_bytes, self.own_bytes)
            .max(grown(before.peak_bytes, self.peak_bytes))
            .max(grown(used(before_group), used(group)))
    }
}

/// Has the driver of the GPU that may be used open what it needs, and measures what drivers have taken of the
/// host's memory since they were looked for, once in a process. Before anything of a model is in memory.
pub(crate) fn measure_driver(gpu: Option<&Gpu>) {
    let Some(before) = BEFORE.get() else { return };
    OPENED.get_or_init(|| {
        if let Some(gpu) = gpu {
            gpu.device.open();
        }
        Some(Held::now().grown_bytes(before)).filter(|grown| *grown >= LEAST_DRIVER_BYTES).unwrap_or(0)
    });
}

/// Bytes of the host's memory that drivers of GPUs take: as measured when they were opened, and as estimated
/// for what follows where something is at home there. 0 where none was looked for.
pub(crate) fn driver_bytes(homes: &Homes, shape: &ModelShape) -> u64 {
    let Some(opened) = OPENED.get().copied() else { return 0 };
    if homes.are_on_host() {
        return opened;
    }
    let there = shape.tensors.iter().filter(|tensor| homes.of(tensor) != PoolId::HOST);
    let largest = there.map(|tensor| tensor.info.bytes).max().unwrap_or(0);
    opened.saturating_add(KERNELS_BYTES).saturating_add(largest.min(STAGING_BYTES))
}

/// The GPU to use, if any.
///
/// # Errors
/// [`LoadError::NoDevice`] when one is named that does not exist.
pub fn choose(options: &DeviceOptions) -> Result<Option<Gpu>, LoadError> {
    if options.choice == DeviceChoice::None {
        return Ok(None);
    }
    BEFORE.get_or_init(Held::now);
    let gpus: Vec<DeviceInfo> = system::devices().into_iter().filter(DeviceInfo::is_gpu).collect();
    let Some(info) = pick(&options.choice, &gpus)? else { return Ok(None) };
    let is_unified = options.is_unified.unwrap_or(info.is_unified);
    let info = DeviceInfo { is_unified, ..info.clone() };
    let device = Device::gpus()?.into_iter().find(|device| device.name() == info.name);
    Ok(device.map(|device| Gpu {
        device,
        budget_bytes: budget_bytes(&info, options.vram_bytes),
        // Mesa 22.3's software driver crashes in it once a prompt was longer than a few tokens.
        flash_attention: !is_software(&info),
        in_place: is_unified && computes_in_place(device),
        info,
    }))
}

/// The GPU to use beside workers: none, and what to say of the one that could compute without them.
///
/// # Errors
/// [`LoadError::GpuBesideWorkers`] when one is named; as [`choose`] where there are no workers.
pub(crate) fn beside(
    workers: &[Worker],
    options: &DeviceOptions,
) -> Result<(Option<Gpu>, Option<String>), LoadError> {
    if workers.is_empty() {
        return Ok((choose(options)?, None));
    }
    if let DeviceChoice::Named(name) = &options.choice {
        return Err(LoadError::GpuBesideWorkers { name: name.clone() });
    }
    let note = |gpu: Gpu| {
        let name = gpu.info.name;
        format!(
            "the GPU {name} is not used: layers are divided among processors and workers, or processor and GPU"
        )
    };
    Ok((None, choose(options)?.map(note)))
}

/// Whether a device computes with a little of the host's memory when it is asked to.
fn computes_in_place(device: Device) -> bool {
    let probe = || {
        let memory = Source::of(&Arena::new(PROBE_BYTES, HugePages::No).ok()?);
        DeviceBuffer::over(device, &memory, 0..PROBE_BYTES).ok()
    };
    device.may_import() && probe().is_some()
}

/// What a device asks of slots that it computes with in the host's memory.
pub(crate) fn bank_rules(device: Device) -> BankRules {
    BankRules {
        alignment: device.alignment(),
        whole_blocks: device.counts_in_blocks(),
        largest_bytes: device.largest_operand_bytes(),
    }
}

/// Has the driver of the GPU that `options` choose open what it needs, for a process that will give up
/// opening files and devices. What cannot be opened is an error when a model is loaded. Returns whether there
/// is such a GPU.
pub fn open(options: &DeviceOptions) -> bool {
    let Ok(Some(gpu)) = choose(options) else { return false };
    gpu.device.open();
    true
}

fn pick<'a>(choice: &DeviceChoice, gpus: &'a [DeviceInfo]) -> Result<Option<&'a DeviceInfo>, LoadError> {
    match choice {
        DeviceChoice::None => Ok(None),
        DeviceChoice::Auto => {
            // The first of equals: a chip that two backends offer is in the list with the better one first.
            let rank = |gpu: &&DeviceInfo| (!gpu.is_unified, gpu.memory_free_bytes);
            Ok(gpus.iter().rev().max_by_key(rank))
        }
        DeviceChoice::Named(name) => {
            let found = gpus.iter().find(|gpu| gpu.name.eq_ignore_ascii_case(name));
            let known = || gpus.iter().map(|gpu| gpu.name.clone()).collect();
            let refused = || libraries::refused().into_iter().map(|library| library.reason).collect();
            let missing = || LoadError::NoDevice { name: name.clone(), known: known(), refused: refused() };
            found.map(Some).ok_or_else(missing)
        }
    }
}

fn budget_bytes(gpu: &DeviceInfo, vram_bytes: Option<u64>) -> u64 {
    let headroom = (gpu.memory_total_bytes / HEADROOM_SHARE).clamp(LEAST_HEADROOM, MOST_HEADROOM);
    let free = gpu.memory_free_bytes;
    vram_bytes.unwrap_or_else(|| free - headroom.min(free / 2))
}

/// Whether it is Mesa's software driver.
fn is_software(gpu: &DeviceInfo) -> bool {
    gpu.description.contains("llvmpipe")
}

impl Gpu {
    /// Whether the least that it could compute, the projection to the vocabulary, fits what may be used of
    /// its memory. Where not even that does, nothing of its driver needs to be opened.
    pub(crate) fn has_room(&self, shape: &ModelShape) -> bool {
        let of_role = shape.tensors.iter().find(|tensor| tensor.role == TensorRole::Output);
        // Where a file has none, it is the embedding of tokens.
        let embedding = || shape.tensors.iter().find(|tensor| tensor.info.name == "token_embd.weight");
        of_role.or_else(embedding).is_none_or(|tensor| tensor.info.bytes <= self.budget_bytes)
    }

    /// Whether it is a driver without a chip.
    #[must_use]
    pub fn is_software(&self) -> bool {
        is_software(&self.info)
    }

    /// What the user may want to know of a plan with layers here.
    #[must_use]
    pub fn layers_note(&self, plan: &Plan) -> Option<String> {
        let (layers, most) = (plan.homes.device_layers(), plan.homes.layers.len() + 1);
        let left = plan.homes.layers.iter().any(|home| home.experts != home.dense);
        let experts = if let Some(dense) = self.streams_note(plan) {
            dense
        } else if plan.homes.streamed_experts != PoolId::HOST && plan.pools.are_unified() {
            format!(", routed experts from {} of slots that it shares", human_bytes(plan.slot_bytes()))
        } else if plan.homes.streamed_experts != PoolId::HOST {
            format!(", routed experts from {} of slots in its memory", human_bytes(plan.device_slot_bytes()))
        } else if left {
            ", but for their routed experts".to_owned()
        } else {
            String::new()
        };
        (layers > 0).then(|| format!("{} computes {layers} of {most} layers{experts}", self.info.name))
    }

    /// Where dense weights come from that this GPU computes with and that are not all in its memory.
    fn streams_note(&self, plan: &Plan) -> Option<String> {
        let dense = plan.dense.as_ref().filter(|_| plan.homes.streamed_dense != PoolId::HOST)?;
        let sources = [(dense.kept.len(), "memory"), (dense.weights.len() - dense.kept.len(), "the disk")];
        let named = sources.into_iter().filter(|(count, _)| *count > 0);
        let named: Vec<String> =
            named.map(|(count, source)| format!("{count} matrices from {source}")).collect();
        (!named.is_empty()).then(|| format!(", {}", named.join(" and ")))
    }

    /// A request with the memory of this GPU beside the host's. Where the two are one memory, `used_bytes` of
    /// the GPU are taken from the host's: the layers that were found to fit, or nothing when that is not
    /// known yet.
    #[must_use]
    pub fn add_to(&self, request: PlanRequest, used_bytes: u64) -> PlanRequest {
        let host = request.pools.host_budget_bytes();
        let pools = if self.info.is_unified {
            Pools::host(host.saturating_sub(used_bytes)).with_device(self.budget_bytes.min(host))
        } else {
            request.pools.with_device(self.budget_bytes)
        };
        PlanRequest { pools, ..request }
    }

    /// A request in which this GPU computes what streams in the host's memory. There is one budget, what the
    /// GPU can have at a time and no more than the host can, of which `used_bytes` are the GPU's alone.
    #[must_use]
    pub fn share(&self, request: PlanRequest, used_bytes: u64) -> PlanRequest {
        let both = self.budget_bytes.min(request.pools.host_budget_bytes());
        let pools = Pools::unified(both.saturating_sub(used_bytes)).with_device(both);
        PlanRequest { pools, banks: Some(bank_rules(self.device)), ..request }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypura_ggml::system::DeviceKind;

    const GIB: u64 = 1 << 30;

    fn gpu(name: &str, free: u64, is_unified: bool) -> DeviceInfo {
        DeviceInfo {
            name: name.to_owned(),
            description: format!("chip of {name}"),
            backend: "Vulkan".to_owned(),
            pci_id: None,
            kind: if is_unified { DeviceKind::IntegratedGpu } else { DeviceKind::Gpu },
            is_unified,
            memory_total_bytes: 2 * free,
            memory_free_bytes: free,
        }
    }

    fn picked(choice: &DeviceChoice, gpus: &[DeviceInfo]) -> Option<String> {
        pick(choice, gpus).unwrap().map(|gpu| gpu.name.clone())
    }

    #[test]
    fn the_roomiest_discrete_gpu_is_taken_and_the_first_of_equals() {
        let gpus = [gpu("A", 8 * GIB, false), gpu("B", 64 * GIB, true), gpu("C", 16 * GIB, false)];
        assert_eq!(picked(&DeviceChoice::Auto, &gpus).as_deref(), Some("C"));
        let twice = [gpu("CUDA0", 8 * GIB, false), gpu("Vulkan0", 8 * GIB, false)];
        assert_eq!(picked(&DeviceChoice::Auto, &twice).as_deref(), Some("CUDA0"));
        assert_eq!(picked(&DeviceChoice::Auto, &[]), None);
        assert_eq!(picked(&DeviceChoice::None, &gpus), None);
    }

    #[test]
    fn a_gpu_is_found_by_name_and_a_wrong_name_lists_the_right_ones() {
        let gpus = [gpu("Vulkan0", GIB, false)];
        assert_eq!(picked(&DeviceChoice::named("vulkan0"), &gpus).as_deref(), Some("Vulkan0"));
        let error = pick(&DeviceChoice::named("CUDA0"), &gpus).unwrap_err().to_string();
        assert!(error.contains("CUDA0") && error.contains("Vulkan0"), "{error}");
        let error = pick(&DeviceChoice::named("CUDA0"), &[]).unwrap_err().to_string();
        assert!(error.contains("hypura doctor"), "{error}");
        assert_eq!(DeviceChoice::named("none"), DeviceChoice::None);
    }

    #[test]
    fn the_budget_is_what_is_free_less_headroom_unless_it_is_given() {
        let budget = |free, vram| super::budget_bytes(&gpu("A", free, false), vram);
        assert_eq!(budget(64 * GIB, None), 63 * GIB);
        assert_eq!(budget(4 * GIB, None), 4 * GIB - GIB / 2);
        assert_eq!(budget(100 << 20, None), 50 << 20);
        assert_eq!(budget(64 * GIB, Some(6 * GIB)), 6 * GIB);
    }
}

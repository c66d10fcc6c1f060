//! Which GPU computes, and how much of its memory may be used.

use hypura_core::plan::{BankRules, ExpertHome, Plan, PlanRequest, PoolId, Pools, human_bytes};
use hypura_ggml::libraries;
use hypura_ggml::system::{self, DeviceInfo};
use hypura_ggml::{Device, DeviceBuffer};
use hypura_storage::process::own_memory;
use hypura_storage::{Arena, HugePages};
use std::sync::OnceLock;

use crate::error::LoadError;
use crate::stream::slots::device::Source;

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

/// Bytes of memory of this process before any GPU was looked for, and what the drivers have taken since the
/// first model was measured on one.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();
static DRIVER: OnceLock<u64> = OnceLock::new();

fn memory_bytes() -> Option<u64> {
    own_memory(None).ok().map(|memory| memory.anonymous_bytes + memory.shared_bytes)
}

/// Bytes of the host's memory that the driver of a GPU takes, known once something was made there: what the
/// process has grown by, less what it would have without. 0 where the system does not say.
pub(crate) fn driver_bytes(process_bytes: u64) -> u64 {
    let grown = || {
        let before = BEFORE.get().copied().flatten()?;
        Some(memory_bytes()?.saturating_sub(before).saturating_sub(process_bytes))
    };
    *DRIVER.get_or_init(|| grown().unwrap_or(0))
}

/// The GPU to use, if any.
///
/// # Errors
/// [`LoadError::NoDevice`] when one is named that does not exist.
pub fn choose(options: &DeviceOptions) -> Result<Option<Gpu>, LoadError> {
    if options.choice == DeviceChoice::None {
        return Ok(None);
    }
    BEFORE.get_or_init(memory_bytes);
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
/// opening files and devices. What cannot be opened is an error when a model is loaded.
pub fn open(options: &DeviceOptions) {
    if let Ok(Some(gpu)) = choose(options) {
        gpu.device.open();
    }
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
        let experts = if plan.homes.streamed_experts != PoolId::HOST && plan.pools.are_unified() {
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

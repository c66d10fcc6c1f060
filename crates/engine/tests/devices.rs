//! The gate on a device that is no host: memory that nobody can address, queues that are late, copies in any
//! order. Every part of it once with everything on the device, once with the experts on the CPU and all else
//! on the device, and once with the experts on the device and all else on the CPU. The device computes with
//! the CPU's kernels, so the bits are the CPU's.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
#[path = "common/exact.rs"]
mod exact;

use exact::At;
use hypura_engine::load::DeviceSettings;
use hypura_engine::sim::{SimDevice, SimDeviceOptions};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs a part of the gate on a device of its own, which must have found nothing wrong.
fn on_device(homes: impl Fn(SimDevice) -> DeviceSettings, part: fn(&At)) {
    let device = SimDevice::new(SimDeviceOptions::default()).unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| part(&At { devices: homes(device) })));
    // Whatever else went wrong follows from these.
    let violations = device.violations();
    assert!(violations.is_empty(), "{} violations, the first: {}", violations.len(), violations[0]);
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    assert_eq!(device.used_bytes(), 0, "memory of the device is lost");
}

mod all_on_the_device {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        let device = device.device();
        DeviceSettings {
            devices: vec![device],
            gpu_layers: -1,
            experts: Some(device),
            dense: Some(device),
            ..DeviceSettings::default()
        }
    }

    exactness!(|part| on_device(homes, part));
}

mod experts_on_the_cpu {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        DeviceSettings { devices: vec![device.device()], gpu_layers: -1, ..DeviceSettings::default() }
    }

    exactness!(|part| on_device(homes, part));
}

mod experts_on_the_device {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        DeviceSettings { experts: Some(device.device()), ..DeviceSettings::default() }
    }

    exactness!(|part| on_device(homes, part));
}

/// The device has slots for fewer experts than the host, but for what a token uses of a layer, and sometimes
/// more than the host has.
mod experts_in_a_few_slots_of_the_device {
    use super::*;

    fn homes(device: SimDevice) -> DeviceSettings {
        let device = device.device();
        DeviceSettings {
            devices: vec![device],
            gpu_layers: -1,
            experts: Some(device),
            expert_slots: Some(10),
            ..DeviceSettings::default()
        }
    }

    exactness! {
        |part| on_device(homes, part);
        mixtral qwen3_moe gpt_oss kimi_k2 mixed_quantisations_make_two_size_classes
        gate_and_up_of_experts_in_one_tensor readers_and_policies
        prefetching_right_or_wrong_changes_no_bit
        large_ubatches_equal_the_resident_run_at_the_same_ubatch
        every_ubatch_equals_the_resident_run_at_the_same_ubatch
        the_demo_model_answers_the_same_from_a_third_of_its_experts
    }
}

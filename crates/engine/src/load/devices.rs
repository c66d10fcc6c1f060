//! Devices besides the CPU, and whose kernels compute with which weights.
//!
//! The plan decides it, never what happens to be in memory: kernels of two devices round differently.

use hypura_core::plan::BankRules;
use hypura_ggml::{Device, LoadMode, LoadOptions};

use crate::device::bank_rules;
use crate::error::LoadError;

/// Devices besides the CPU, and what they are for. By default there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Devices that layers may be on: attention, KV cache, and weights that stay in memory.
    pub devices: Vec<Device>,
    /// Layers for them, the last ones first and the output layer before them; −1 for all.
    pub gpu_layers: i32,
    /// Where streamed experts are computed with; `None`: on the CPU, wherever the rest of their layer is.
    pub experts: Option<Device>,
    /// Slots of each class in the memory of that device; `None`: as the plan says, or as many as the host has
    /// where the plan knows nothing of it.
    pub expert_slots: Option<u32>,
    /// Where streamed dense weights are computed with; `None`: on the CPU.
    pub dense: Option<Device>,
    /// Whether those two compute with what streams in the host's memory, where it is.
    pub in_place: bool,
}

impl DeviceSettings {
    /// The device that computes with streamed experts.
    ///
    /// # Errors
    /// [`LoadError::Ggml`] when there is not even a CPU.
    pub(super) fn of_experts(&self) -> Result<Device, LoadError> {
        Ok(self.experts.map_or_else(Device::cpu, Ok)?)
    }

    /// What that device asks of slots of the host that it computes with.
    pub(super) fn bank_rules(&self) -> Option<BankRules> {
        self.experts.filter(|_| self.in_place).map(bank_rules)
    }

    /// The device that computes with streamed dense weights.
    ///
    /// # Errors
    /// As [`Self::of_experts`].
    pub(super) fn of_dense(&self) -> Result<Device, LoadError> {
        Ok(self.dense.map_or_else(Device::cpu, Ok)?)
    }

    /// The device that computes with experts that stay in memory: routes can be looked into on one device
    /// only.
    pub(super) fn of_resident_experts(&self) -> Result<Device, LoadError> {
        let device = self.devices.first().filter(|_| self.gpu_layers != 0).copied();
        Ok(device.map_or_else(Device::cpu, Ok)?)
    }

    /// What llama.cpp is told for a measurement.
    pub(super) fn measured(&self, path: std::path::PathBuf) -> LoadOptions {
        let mode = LoadMode::Measure { placements: Vec::new() };
        LoadOptions { devices: self.all(), gpu_layers: self.gpu_layers, ..LoadOptions::on_cpu(path, mode) }
    }

    /// Every device that computes anything, but for the CPU.
    pub(super) fn all(&self) -> Vec<Device> {
        let mut all = self.devices.clone();
        for device in [self.experts, self.dense].into_iter().flatten() {
            if !all.contains(&device) {
                all.push(device);
            }
        }
        all
    }
}
